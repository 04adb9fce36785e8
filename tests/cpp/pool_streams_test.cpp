// The pool between streams: who may use a freed block, after what. Work runs only when something waits for it, so an
// order that is missing shows as wrong bytes.
#include <algorithm>
#include <array>
#include <thread>

#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "hand_over.hpp"
#include "simulated.hpp"

namespace cenote::test {
namespace {

const stream_ref per_thread_default(CU_STREAM_PER_THREAD);

class pool_streams : public simulated_device {
 public:
  // All of the pool is handed out in blocks that are each worth a mark (more than a thirty-second of it), so that what
  // one stream gets must be what another has freed.
  static constexpr std::size_t unit = 128 * KiB;
  static constexpr std::size_t pool_bytes = 32 * unit;
  static constexpr std::size_t block_bytes = 31 * unit;

  void SetUp() override {
    simulated_device::SetUp();
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), pool_bytes, pool_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    introduction_ = pool_->allocate(b(), 1 * unit);  // the pool has met B before A frees
  }

  void TearDown() override {
    pool_->check();
    pool_->deallocate(b(), introduction_, 1 * unit);
    a_.reset();
    b_.reset();
    pool_.reset();
    simulated_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
  void* introduction_ = nullptr;
};

TEST_F(pool_streams, a_block_of_another_stream_is_used_after_that_streams_work) {
  void* const witness = device_allocate(0, block_bytes);
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  const call_count host_waits("cuStreamSynchronize");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(host_waits.value(), 0) << "the device waits, the host does not";
  EXPECT_EQ(pool_->counters().waits, 1u);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

TEST_F(pool_streams, bytes_are_wrong_where_nobody_waits) {
  // The same without the pool: proof that the test above can fail.
  void* const witness = device_allocate(0, block_bytes);
  void* const block = device_allocate(0, block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_FALSE(seen.block_is_the_new_owners) << "A's work came last";
  device_free(0, block);
  device_free(0, witness);
}

TEST_F(pool_streams, waiting_runs_the_former_owners_work_and_no_more_of_it) {
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  void* const later = device_allocate(0, 256);
  fill_async(later, 1, 256, a(), 0);  // queued on A after the free: B has no part in it
  void* const again = pool_->allocate(b(), block_bytes);
  synchronize(b(), 0);
  EXPECT_FALSE(is_done(a(), 0));
  pool_->deallocate(b(), again, block_bytes);
  cenote_sim_drain();
  device_free(0, later);
}

TEST_F(pool_streams, waits_once_for_an_order_that_is_then_known) {
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(a(), 16 * unit);
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(a(), high, 16 * unit);
  const call_count waits("cuStreamWaitEvent");
  void* const first = pool_->allocate(b(), 15 * unit);
  void* const second = pool_->allocate(b(), 16 * unit);
  EXPECT_EQ(waits.value(), 1);
  EXPECT_EQ(pool_->counters().from_other_stream, 2u);
  pool_->deallocate(b(), first, 15 * unit);
  pool_->deallocate(b(), second, 16 * unit);
}

TEST_F(pool_streams, a_later_free_is_waited_for_again) {
  for (int round = 1; round <= 3; ++round) {
    void* const block = pool_->allocate(a(), block_bytes);
    pool_->deallocate(a(), block, block_bytes);
    void* const again = pool_->allocate(b(), block_bytes);
    EXPECT_GE(pool_->counters().waits, 2u * static_cast<unsigned>(round) - 1) << "A waited for B, and B for A";
    pool_->deallocate(b(), again, block_bytes);
  }
}

TEST_F(pool_streams, a_stream_that_was_forgotten_meanwhile_is_waited_for_again) {
  void* const block = pool_->allocate(a(), block_bytes);
  pool_->deallocate(a(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);        // B knows A's order up to here
  EXPECT_EQ(pool_->try_allocate(b(), block_bytes), nullptr);  // in search of memory the pool forgets A, which has none
  pool_->deallocate(b(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(a(), block_bytes), block);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(pool_->counters().waits, 3u);
  fill_async(block, 0xBB, block_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(block, block_bytes, b()), 0xBB));
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_streams, a_wait_that_failed_is_no_allocation) {
  void* const block = pool_->allocate(a(), block_bytes);
  pool_->deallocate(a(), block, block_bytes);
  const auto before = pool_->counters();
  cenote_sim_fail("cuStreamWaitEvent", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(pool_->allocate(b(), block_bytes), cuda_error);
  EXPECT_EQ(pool_->counters().allocations, before.allocations);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream);
  EXPECT_EQ(pool_->state().in_use, 1 * unit);
  EXPECT_EQ(pool_->allocate(b(), block_bytes), block);
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_streams, a_block_that_no_event_covers_is_reclaimed_behind_all_work) {
  void* const witness = device_allocate(0, block_bytes);
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);  // the mark is not to be had
  pool_->deallocate(a(), block, block_bytes);
  const call_count context_events("cuCtxRecordEvent");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(context_events.value(), 1);
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

TEST_F(pool_streams, reclaiming_joins_the_blocks_of_all_streams) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(c.view(), 16 * unit);
  for (int i = 0; i < 8; ++i) {  // more work than asking an event gets done
    fill_async(low, 0xAA, 15 * unit, a(), 0);
    fill_async(high, 0xAA, 16 * unit, c.view(), 0);
  }
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(c.view(), high, 16 * unit);
  void* const both = pool_->allocate(b(), block_bytes);
  EXPECT_EQ(both, std::min(low, high));
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  fill_async(both, 0xBB, block_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(both, block_bytes, b()), 0xBB));
  pool_->deallocate(b(), both, block_bytes);
}

TEST_F(pool_streams, a_block_is_everybodys_once_its_event_has_completed) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(c.view(), 16 * unit);
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(c.view(), high, 16 * unit);
  synchronize(a(), 0);
  synchronize(c.view(), 0);
  void* const both = pool_->allocate(b(), block_bytes);  // in neither stream's blocks alone
  EXPECT_EQ(both, std::min(low, high));
  EXPECT_EQ(pool_->counters().waits, 0u);
  EXPECT_EQ(pool_->counters().from_reclaim, 0u);
  pool_->deallocate(b(), both, block_bytes);
}

TEST_F(pool_streams, blocks_outlive_the_stream_that_freed_them) {
  void* const witness = device_allocate(0, block_bytes);
  void* block = nullptr;
  {
    const cuda_stream gone(0, cuda_stream::kind::non_blocking);
    block = pool_->allocate(gone.view(), block_bytes);
    fill_async(block, 0xAA, block_bytes, gone.view(), 0);
    copy_async(witness, block, block_bytes, gone.view(), 0);
    cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);  // no mark either: nothing is left to wait for but all
    pool_->deallocate(gone.view(), block, block_bytes);
  }
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

template <class Stream>
class pool_streams_that_come_and_go : public pool_streams {};

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
  for (int i = 0; i < 100; ++i) blocks.push_back(pool_->allocate(handle, small));
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
  use_and_free(0, 4);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  use_and_free(4, blocks.size());

  std::vector<void*> all;
  while (void* const block = pool_->try_allocate(a, small)) {
    fill_async(block, 0xBB, small, a, 0);
    all.push_back(block);
  }
  for (void* const block : blocks) EXPECT_NE(std::find(all.begin(), all.end(), block), all.end());
  synchronize(a, 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(witness, small * blocks.size(), a), 0xAA));
  for (void* const block : blocks)
    EXPECT_TRUE(all_are(read(block, small, a), 0xBB)) << "the old owner's work came last";
  for (void* const block : all) pool_->deallocate(a, block, small);
  device_free(0, witness);
}

/// The same where a block is too large for a cache: the new stream's mark covers nothing of the old one's.
TYPED_TEST(pool_streams_that_come_and_go, a_mark_of_a_new_one_covers_nothing_of_the_old_one) {
  constexpr std::size_t unmarked = pool_streams::unit / 2, marked = 16 * pool_streams::unit;
  const auto& pool_ = this->pool_;
  const stream_ref b = this->b();
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  void* const of_the_old = pool_->allocate(handle, unmarked);
  void* const of_the_new = pool_->allocate(handle, marked);
  fill_async(of_the_old, 0xAA, unmarked, handle, 0);
  pool_->deallocate(handle, of_the_old, unmarked);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  pool_->deallocate(handle, of_the_new, marked);
  std::vector<void*> all;
  while (void* const block = pool_->try_allocate(b, unmarked)) {
    fill_async(block, 0xBB, unmarked, b, 0);
    all.push_back(block);
  }
  EXPECT_NE(std::find(all.begin(), all.end(), of_the_old), all.end());
  synchronize(b, 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(of_the_old, unmarked, b), 0xBB)) << "the old one's work came last";
  for (void* const block : all) pool_->deallocate(b, block, unmarked);
}

/// What such a thread frees is not lost to the new stream for long: the pool need not grow for it.
TYPED_TEST(pool_streams_that_come_and_go, a_new_one_gets_back_what_a_thread_frees_that_only_frees) {
  constexpr std::size_t small = 2 * KiB;
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 4 * MiB);
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  pool->deallocate(handle, pool->allocate(handle, small), small);  // this thread has met it
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
  pool->check();
}

/// A stream that wants what others free, block by block: the first time it waits for all work, and from then on for
/// the stream that freed.
TEST_F(pool_streams, under_pressure_each_free_is_marked_at_once) {
  constexpr std::size_t small = unit / 2;  // not worth a mark of its own
  std::vector<void*> blocks;
  while (void* const block = pool_->try_allocate(a(), small)) blocks.push_back(block);
  const auto before = pool_->counters();
  for (int i = 0; i < 200; ++i) {
    const stream_ref from = i % 2 == 0 ? a() : b(), to = i % 2 == 0 ? b() : a();
    fill_async(blocks[0], 0xAA, small, from, 0);
    void* const witness = device_allocate(0, small);
    copy_async(witness, blocks[0], small, from, 0);
    pool_->deallocate(from, blocks[0], small);
    void* const again = pool_->allocate(to, small);
    ASSERT_EQ(again, blocks[0]);
    if (i % 20 == 0) {
      const outcome seen = hand_over(from, to, again, witness, small);
      EXPECT_TRUE(seen.former_owner_was_done);
      EXPECT_TRUE(seen.block_is_the_new_owners);
    }
    device_free(0, witness);
  }
  const auto after = pool_->counters();
  EXPECT_EQ(after.waits - before.waits, 200u) << "one for each hand-over";
  EXPECT_EQ(after.from_reclaim - before.from_reclaim, 1u);
  EXPECT_EQ(after.from_other_stream - before.from_other_stream, 199u);
  EXPECT_EQ(after.events - before.events, 200u)
      << "one for each free after the first, and one for what the reclaim left";
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
}

TEST_F(pool_streams, without_pressure_frees_share_their_marks_again) {
  constexpr std::size_t small = unit / 2;
  std::vector<void*> blocks;
  while (void* const block = pool_->try_allocate(a(), small)) blocks.push_back(block);
  pool_->deallocate(a(), blocks.back(), small);
  blocks.back() = pool_->allocate(b(), small);  // the pressure
  const auto before = pool_->counters();
  const auto frees = [&](int count) {
    for (int i = 0; i < count; ++i) {
      pool_->deallocate(a(), blocks[0], small);
      blocks[0] = pool_->allocate(a(), small);
    }
    return pool_->counters().events - before.events;
  };
  EXPECT_EQ(frees(32), 32u);
  EXPECT_EQ(frees(64), 32u + 64u / 2) << "two of these blocks are worth a mark";
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
}

/// For a sanitizer: each thread's search for memory makes the pool forget the others' streams, which have none.
TEST_F(pool_streams, are_forgotten_by_one_thread_while_others_use_them) {
  const auto search = [&] {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < 500; ++i) EXPECT_EQ(pool_->try_allocate(own.view(), pool_bytes), nullptr);
  };
  std::thread one(search), two(search), three(search);
  one.join();
  two.join();
  three.join();
}

TEST_F(pool_streams, the_per_thread_default_streams_of_two_threads_are_two_streams) {
  void* block = nullptr;
  std::thread([&] {
    block = pool_->allocate(per_thread_default, block_bytes);
    fill_async(block, 0xAA, block_bytes, per_thread_default, 0);
    pool_->deallocate(per_thread_default, block, block_bytes);
  }).join();
  const auto own_before = pool_->counters().from_own_stream;
  void* const again = pool_->allocate(per_thread_default, block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(pool_->counters().from_own_stream, own_before);
  fill_async(again, 0xBB, block_bytes, per_thread_default, 0);
  synchronize(per_thread_default, 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(again, block_bytes, per_thread_default), 0xBB));
  pool_->deallocate(per_thread_default, again, block_bytes);
}

TEST_F(pool_streams, both_names_of_the_legacy_default_stream_are_one_stream) {
  void* const block = pool_->allocate({}, block_bytes);
  pool_->deallocate({}, block, block_bytes);
  const auto own_before = pool_->counters().from_own_stream;
  EXPECT_EQ(pool_->allocate(stream_ref(CU_STREAM_LEGACY), block_bytes), block);
  EXPECT_EQ(pool_->counters().from_own_stream, own_before + 1);
  pool_->deallocate({}, block, block_bytes);
}

TEST_F(pool_streams, one_event_is_recorded_for_many_small_frees) {
  std::vector<void*> blocks;
  for (int i = 0; i < 1024; ++i) blocks.push_back(pool_->allocate(a(), 256));
  const call_count records("cuEventRecord");
  for (void* const block : blocks) pool_->deallocate(a(), block, 256);
  EXPECT_GE(records.value(), 16);
  EXPECT_LE(records.value(), 32);
}

TEST_F(pool_streams, a_stream_that_cannot_be_identified_frees_to_nobody_until_a_reclaim) {
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  cenote_sim_fail("cuStreamIsCapturing", 1, CUDA_ERROR_UNKNOWN);
  pool_->deallocate(a(), block, block_bytes);
  void* const again = pool_->allocate(a(), block_bytes);
  EXPECT_EQ(again, block);
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  pool_->deallocate(a(), again, block_bytes);
}

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

TEST_F(pool_streams, a_stream_of_another_device_is_refused_and_what_it_frees_is_leaked) {
  const cuda_stream foreign(1);
  EXPECT_THROW(pool_->allocate(foreign.view(), 256), std::invalid_argument);
  void* const block = pool_->allocate(a(), block_bytes);
  {
    captured_stderr said;
    pool_->deallocate(foreign.view(), block, block_bytes);
    const std::string text = said.text();
    EXPECT_NE(text.find("stream of device 1"), std::string::npos) << text;
  }
  EXPECT_EQ(pool_->try_allocate(b(), block_bytes), nullptr) << "nothing orders that stream's work";
  pool_->deallocate(a(), block, block_bytes);
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
