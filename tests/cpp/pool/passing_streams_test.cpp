// Streams that come and go: who is taken for whom, what they leave in a pool, and that a thousand of them leave nothing
// that lasts. Work runs only when something waits for it, so an order that is missing shows as wrong bytes.
#include <algorithm>
#include <array>
#include <thread>

#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/hand_over.hpp"
#include "support/pool_of_streams.hpp"

namespace cenote::test {
namespace {

template <class Stream>
class pool_streams_that_come_and_go : public pool_streams {
 public:
  /// All that there is in blocks of this size, each overwritten and given back; what others had queued comes before.
  std::vector<void*> overwrite_all(stream_ref stream, std::size_t bytes) {
    std::vector<void*> all;
    while (void* const block = pool_->try_allocate(stream, bytes)) {
      fill_async(block, 0xBB, bytes, stream, 0);
      all.push_back(block);
    }
    synchronize(stream, 0);
    cenote_sim_drain();
    for (void* const block : all) {
      EXPECT_TRUE(all_are(read(block, bytes, stream), 0xBB)) << "another's work came last";
      pool_->deallocate(stream, block, bytes);
    }
    return all;
  }
};

using kinds_of_streams = testing::Types<stream_of_ours, foreign_stream>;
TYPED_TEST_SUITE(pool_streams_that_come_and_go, kinds_of_streams);

TYPED_TEST(pool_streams_that_come_and_go, a_new_one_with_an_old_handle_is_another_stream) {
  const auto& pool_ = this->pool_;
  constexpr std::size_t block_bytes = pool_streams::block_bytes;
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  void* const block = pool_->allocate(handle, block_bytes);
  fill_async(block, 0xAA, block_bytes, handle, 0);
  pool_->deallocate(handle, block, block_bytes);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";

  const auto own_before = pool_->counters().from_own_stream;
  void* const again = pool_->allocate(new_stream.view(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(pool_->counters().from_own_stream, own_before);
  EXPECT_EQ(pool_->counters().waits, 1u);
  fill_async(again, 0xBB, block_bytes, new_stream.view(), 0);
  synchronize(new_stream.view(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(again, block_bytes, new_stream.view()), 0xBB));
  pool_->deallocate(new_stream.view(), again, block_bytes);
}

/// What a stream leaves in its cache when it ends is not lost to those that come.
TYPED_TEST(pool_streams_that_come_and_go, leave_no_pool_that_grows_and_grows) {
  const auto large = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 4 * MiB);
  for (int i = 0; i < 1'000; ++i) {
    const TypeParam passing;
    std::array<void*, 8> blocks{};
    for (void*& block : blocks) block = large->allocate(passing.view(), 8 * KiB);
    for (void* const block : blocks) large->deallocate(passing.view(), block, 8 * KiB);
  }
  EXPECT_LE(large->pool_size(), 8 * MiB);
}

/// Not either where most of the pool is in use: what lies in their caches is reclaimed before it grows.
TYPED_TEST(pool_streams_that_come_and_go, leave_no_pool_that_grows_although_much_lies_in_their_caches) {
  pool_memory_resource pool(std::make_shared<cuda_memory_resource>(0), 4 * MiB);
  void* const most = pool.allocate({}, 5 * MiB / 2);
  for (int i = 0; i < 100; ++i) {
    const TypeParam passing;
    std::array<void*, 8> blocks{};
    for (void*& block : blocks) block = pool.allocate(passing.view(), 8 * KiB);
    for (void* const block : blocks) pool.deallocate(passing.view(), block, 8 * KiB);
  }
  EXPECT_EQ(pool.pool_size(), 4 * MiB);
  pool.deallocate({}, most, 5 * MiB / 2);
}

/// A thread that has not allocated since takes the new stream for the old one. What it frees then is ordered by neither
/// alone, and may go to others only after the work of both.
TYPED_TEST(pool_streams_that_come_and_go, a_free_on_a_new_one_that_is_taken_for_the_old_one_waits_for_both) {
  constexpr std::size_t small = 8 * KiB;                 // goes to a front cache, which has room for 8 of them
  constexpr std::size_t large = pool_streams::unit / 2;  // does not, and is with 8 of them worth a mark
  const auto& pool_ = this->pool_;
  std::vector<void*> blocks;
  const stream_ref a = this->a();
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  pool_->deallocate(handle, pool_->allocate(handle, small), small);
  constexpr std::size_t one_too_many = 9;  // the others go to the heap
  for (std::size_t i = 0; i < 2 * one_too_many; ++i) blocks.push_back(pool_->allocate(handle, small));
  std::sort(blocks.begin(), blocks.end());
  std::vector<void*> borders;  // in use, so that no two that are freed become one
  for (std::size_t i = 0; i < one_too_many; ++i) {
    borders.push_back(blocks[i]);
    blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i));
  }
  void* const witness = device_allocate(0, small * blocks.size());
  const auto copied = [&](std::size_t i) { return static_cast<std::byte*>(witness) + i * small; };
  const auto use_and_free = [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      fill_async(blocks[i], 0xAA, small, handle, 0);
      copy_async(copied(i), blocks[i], small, handle, 0);
      pool_->deallocate(handle, blocks[i], small);
    }
  };
  pool_->deallocate(handle, pool_->allocate(handle, large), large);
  for (int i = 0; i < 64; ++i) fill_async(witness, 0, small * 4, handle, 0);  // more than asking events gets done
  use_and_free(0, 4);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  use_and_free(4, blocks.size());

  const std::vector<void*> all = this->overwrite_all(a, small);
  for (void* const block : blocks) EXPECT_NE(std::find(all.begin(), all.end(), block), all.end());
  EXPECT_TRUE(all_are(read(witness, small * blocks.size(), a), 0xAA));
  for (void* const border : borders) pool_->deallocate(a, border, small);
  device_free(0, witness);
}

/// The same where a block is too large for a cache: the new stream's mark covers nothing of the old one's.
TYPED_TEST(pool_streams_that_come_and_go, a_mark_of_a_new_one_covers_nothing_of_the_old_one) {
  constexpr std::size_t unmarked = pool_streams::unit / 2, marked = 16 * pool_streams::unit;
  const auto& pool_ = this->pool_;
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  void* const of_the_old = pool_->allocate(handle, unmarked);
  void* const of_the_new = pool_->allocate(handle, marked);
  for (int i = 0; i < 64; ++i) fill_async(of_the_old, 0xAA, unmarked, handle, 0);  // asking events does not do it
  pool_->deallocate(handle, of_the_old, unmarked);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  pool_->deallocate(handle, of_the_new, marked);
  const std::vector<void*> all = this->overwrite_all(this->b(), unmarked);
  EXPECT_NE(std::find(all.begin(), all.end(), of_the_old), all.end());
}

/// Nor where the block is small, but its thread has no cache for either of them.
TYPED_TEST(pool_streams_that_come_and_go, a_mark_for_a_small_block_of_a_new_one_covers_nothing_of_the_old_one) {
  constexpr std::size_t small = 8 * KiB, unmarked = pool_streams::unit - small / 2;  // together worth a mark
  const auto& pool_ = this->pool_;
  const stream_ref b = this->b();
  void* const of_the_new = pool_->allocate(b, small);
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  void* const of_the_old = pool_->allocate(handle, unmarked);
  for (int i = 0; i < 64; ++i) fill_async(of_the_old, 0xAA, unmarked, handle, 0);
  pool_->deallocate(handle, of_the_old, unmarked);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  pool_->deallocate(handle, of_the_new, small);
  this->overwrite_all(b, unmarked);
}

/// What such a thread frees is not lost to the new stream for long: it need not be reclaimed, nor the pool grow for it.
TYPED_TEST(pool_streams_that_come_and_go, a_new_one_gets_back_what_a_thread_frees_that_only_frees) {
  constexpr std::size_t small = 2 * KiB;
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 4 * MiB);
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  for (int i = 0; i < 2; ++i) pool->deallocate(handle, pool->allocate(handle, small), small);
  // Now this thread takes the handle for that stream.
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  for (int round = 0; round < 100; ++round) {
    std::vector<void*> blocks;
    std::thread([&] {
      for (int i = 0; i < 64; ++i) blocks.push_back(pool->allocate(handle, small));
    }).join();
    for (void* const block : blocks) pool->deallocate(handle, block, small);
  }
  EXPECT_EQ(pool->pool_size(), 4 * MiB) << "64 blocks of 2 KiB are in use at once";
  EXPECT_EQ(pool->counters().from_reclaim, 0u);
  pool->check();
}

/// A stream that wants what others free, block by block: the first time it waits for all work, and from then on for
/// the stream that freed.

TEST_F(pool_streams, streams_that_come_and_go_leave_nothing_behind) {
  for (int i = 0; i < 300; ++i) {
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    void* const block = pool_->allocate(passing.view(), block_bytes);
    fill_async(block, static_cast<unsigned char>(i), block_bytes / 64, passing.view(), 0);
    pool_->deallocate(passing.view(), block, block_bytes);
    ASSERT_LE(live_objects().events, 100u);
    pool_->check();
  }
  EXPECT_EQ(pool_->pool_size(), pool_bytes);
}

/// Random work on a few streams, each byte of which is known: nobody ever reads what another wrote. Blocks pass to
/// other streams, which then free them without ever having allocated.
TYPED_TEST(pool_streams_that_come_and_go, show_no_bytes_of_others_in_a_random_history) {
  const auto& pool_ = this->pool_;
  struct block {
    void* memory;
    std::size_t bytes;
    std::shared_ptr<TypeParam> stream;
    unsigned char token;
  };
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto fresh_stream = [] { return std::make_shared<TypeParam>(); };
    std::vector<std::shared_ptr<TypeParam>> streams(4);
    for (auto& stream : streams) stream = fresh_stream();
    std::vector<block> blocks;
    const auto finish = [&](std::size_t i) {
      block& of = blocks[i];
      if (const auto& other = streams[random() % streams.size()]; random() % 2 == 0) {
        order_after(other->view(), of.stream->view(), 0);
        of.stream = other;
      }
      const block b = of;
      const stream_ref stream = b.stream->view();
      if (random() % 3 == 0) {
        ASSERT_TRUE(all_are(read(b.memory, b.bytes, stream), b.token));
      }
      pool_->deallocate(stream, b.memory, b.bytes);
      blocks[i] = blocks.back();
      blocks.pop_back();
    };
    for (int step = 0; step < 400; ++step) {
      const std::size_t on = random() % streams.size();
      const std::size_t bytes = std::size_t{256} << (random() % 12);
      void* const memory = pool_->try_allocate(streams[on]->view(), bytes, std::size_t{256} << (random() % 4));
      if (memory != nullptr) {
        blocks.push_back({memory, bytes, streams[on], static_cast<unsigned char>(random())});
        fill_async(memory, blocks.back().token, bytes, streams[on]->view(), 0);
      }
      if (memory == nullptr || blocks.size() > 40) finish(random() % blocks.size());
      if (this->HasFatalFailure()) return;
      if (random() % 50 == 0) streams[on] = fresh_stream();  // the old one goes with its last block
      if (random() % 100 == 0) synchronize(streams[on]->view(), 0);
    }
    cenote_sim_drain();
    while (!blocks.empty()) finish(0);
  }
}

/// A pool that as many streams have used up as are a crowd; each has left its block, and is gone.
class pool_after_a_crowd : public simulated_device {
 public:
  static constexpr std::size_t crowd = 1024, block_bytes = 64 * KiB;

  void SetUp() override {
    simulated_device::SetUp();
    pool_.emplace(std::make_shared<cuda_memory_resource>(0), crowd * block_bytes, crowd * block_bytes);
    witness_ = device_allocate(0, block_bytes);
    for (std::size_t i = 0; i + 1 < crowd; ++i) {
      const cuda_stream once(0, cuda_stream::kind::non_blocking);
      pool_->deallocate(once.view(), pool_->allocate(once.view(), block_bytes), block_bytes);
    }
    busy_.emplace(0, cuda_stream::kind::non_blocking);
    last_ = pool_->allocate(busy_->view(), block_bytes);
    before_ = pool_->counters();
    ASSERT_EQ(before_.from_ready, crowd);
  }

  void TearDown() override {
    pool_->check();
    pool_.reset();
    busy_.reset();
    device_free(0, witness_);
    simulated_device::TearDown();
  }

  /// More work than asking an event for each stream gets done.
  void free_with_work_pending() {
    for (std::size_t i = 0; i < 4 * crowd; ++i) fill_async(witness_, 0, 1, busy_->view(), 0);
    fill_async(last_, 0xAA, block_bytes, busy_->view(), 0);
    copy_async(witness_, last_, block_bytes, busy_->view(), 0);
    pool_->deallocate(busy_->view(), last_, block_bytes);
  }

  std::uint64_t waits() const { return pool_->counters().waits - before_.waits; }
  std::uint64_t from_ready() const { return pool_->counters().from_ready - before_.from_ready; }

  std::optional<pool_memory_resource> pool_;
  std::optional<cuda_stream> busy_;
  void* last_ = nullptr;
  void* witness_ = nullptr;
  pool_counters before_;
};

TEST_F(pool_after_a_crowd, everybody_has_what_was_left_once_the_work_is_done) {
  pool_->deallocate(busy_->view(), last_, block_bytes);
  const call_count context_events("cuCtxRecordEvent");
  const cuda_stream next(0, cuda_stream::kind::non_blocking);
  void* const block = pool_->allocate(next.view(), block_bytes);
  EXPECT_EQ(context_events.value(), 1);
  EXPECT_EQ(from_ready(), 1u);
  EXPECT_EQ(waits(), 0u);
  EXPECT_EQ(pool_->state().largest_free, (crowd - 1) * block_bytes) << "it is all joined";
  for (int i = 0; i < 100; ++i) {
    const cuda_stream once(0, cuda_stream::kind::non_blocking);
    pool_->deallocate(once.view(), pool_->allocate(once.view(), block_bytes), block_bytes);
  }
  EXPECT_EQ(context_events.value(), 1) << "streams are few again";
  pool_->deallocate(next.view(), block, block_bytes);
}

TEST_F(pool_after_a_crowd, nobody_has_what_was_left_before_the_work_is_done) {
  free_with_work_pending();
  const cuda_stream next(0, cuda_stream::kind::non_blocking);
  void* const block = pool_->allocate(next.view(), crowd * block_bytes);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(from_ready(), 0u);
  EXPECT_GE(waits(), 1u);
  const outcome seen = hand_over(busy_->view(), next.view(), last_, witness_, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(next.view(), block, crowd * block_bytes);
}

TEST_F(pool_after_a_crowd, nothing_is_recorded_beside_a_capture) {
  pool_->deallocate(busy_->view(), last_, block_bytes);
  const call_count context_events("cuCtxRecordEvent");
  capture_begins(0);
  const cuda_stream next(0, cuda_stream::kind::non_blocking);
  EXPECT_EQ(pool_->try_allocate(next.view(), 2 * block_bytes), nullptr);
  capture_ended(0);
  EXPECT_EQ(context_events.value(), 0);
}

TEST_F(pool_after_a_crowd, an_event_that_is_not_to_be_had_costs_nobody_his_memory) {
  pool_->deallocate(busy_->view(), last_, block_bytes);
  cenote_sim_fail("cuCtxRecordEvent", 1, CUDA_ERROR_UNKNOWN);
  const cuda_stream next(0, cuda_stream::kind::non_blocking);
  void* const block = pool_->allocate(next.view(), block_bytes);
  ASSERT_NE(block, nullptr) << "by a reclaim";
  pool_->deallocate(next.view(), block, block_bytes);
}

}  // namespace
}  // namespace cenote::test
