// Blocks on offer in a pool: what is freed while another stream goes without passes to it after the former owner's
// work, and is nobody's loss until then. Work runs only when something waits for it, so an order that is missing shows
// as wrong bytes.
#include <algorithm>
#include <atomic>
#include <semaphore>
#include <thread>

#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "simulated.hpp"

namespace cenote::test {
namespace {

// Too large for a front cache, and not worth a mark but under pressure.
constexpr std::size_t block_bytes = 64 * KiB;

std::shared_ptr<pool_memory_resource> make_pool(std::size_t bytes) {
  return std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), bytes, bytes);
}

/// A pool that is full, and a stream that has just gone without: what is freed next is on offer.
class pool_offers : public simulated_device {
 public:
  static constexpr std::size_t pool_bytes = 64 * block_bytes;
  static constexpr std::size_t large_bytes = 2 * block_bytes;

  void SetUp() override {
    simulated_device::SetUp();
    pool_ = make_pool(pool_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    witness_ = device_allocate(0, large_bytes);
    large_ = pool_->allocate(a(), large_bytes);
    while (void* const block = pool_->try_allocate(a(), block_bytes)) blocks_.push_back(block);
    pool_->deallocate(a(), blocks_.back(), block_bytes);
    blocks_.back() = pool_->allocate(b(), block_bytes);
    before_ = pool_->counters();
    ASSERT_EQ(before_.from_reclaim, 1u);
  }

  void TearDown() override {
    pool_->check();
    const auto figures = pool_->counters();
    EXPECT_EQ(figures.allocations, figures.from_front_cache + figures.from_own_stream + figures.from_ready +
                                       figures.from_other_stream + figures.from_upstream + figures.from_reclaim);
    pool_->deallocate(a(), large_, large_bytes);
    for (void* const block : blocks_) pool_->deallocate(a(), block, block_bytes);
    EXPECT_EQ(in_use(), 0u);
    pool_->check();
    a_.reset();
    b_.reset();
    {
      captured_stderr said;
      pool_.reset();
      EXPECT_EQ(said.text(), "") << "what is on offer is not in use";
    }
    device_free(0, witness_);
    simulated_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  void* take_one_out() {
    void* const block = blocks_.front();
    blocks_.erase(blocks_.begin());
    return block;
  }

  /// More work than asking an event gets done.
  void keep_busy(stream_ref stream) const {
    for (int i = 0; i < 16; ++i) fill_async(witness_, 0, block_bytes, stream, 0);
  }

  /// The last that the stream does with the block is to copy it to the witness.
  void use_and_free(stream_ref stream, void* block, std::size_t bytes = block_bytes) {
    keep_busy(stream);
    fill_async(block, 0xAA, bytes, stream, 0);
    copy_async(witness_, block, bytes, stream, 0);
    pool_->deallocate(stream, block, bytes);
  }

  /// The new owner overwrites the block, and only it is waited for. Then all else runs.
  void expect_overwritten(stream_ref to, void* block, std::size_t bytes = block_bytes) const {
    fill_async(block, 0xBB, bytes, to, 0);
    synchronize(to, 0);
    cenote_sim_drain();
    EXPECT_TRUE(all_are(read(block, bytes, to), 0xBB)) << "the former owner's work came last";
  }

  /// After use_and_free of this very block, which was the last on the witness.
  void expect_handed_over(stream_ref to, void* block, std::size_t bytes = block_bytes) const {
    expect_overwritten(to, block, bytes);
    EXPECT_TRUE(all_are(read(witness_, bytes, to), 0xAA)) << "the former owner was not done";
  }

  std::size_t in_use() const { return *pool_->state().in_use; }

  /// What the heap itself has free: a block on offer is not part of it.
  std::size_t free_in_heap() const { return *pool_->state().largest_free; }

  std::uint64_t waits() const { return pool_->counters().waits - before_.waits; }
  std::uint64_t from_own_stream() const { return pool_->counters().from_own_stream - before_.from_own_stream; }
  std::uint64_t from_other_stream() const { return pool_->counters().from_other_stream - before_.from_other_stream; }
  std::uint64_t from_reclaim() const { return pool_->counters().from_reclaim - before_.from_reclaim; }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
  void* witness_ = nullptr;
  void* large_ = nullptr;
  std::vector<void*> blocks_;  // in use; the first of them lie beside each other
  pool_counters before_;
};

TEST_F(pool_offers, go_to_another_stream_after_the_work_of_the_former_owner) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  EXPECT_EQ(free_in_heap(), 0u) << "it is on offer";
  const call_count host_waits("cuStreamSynchronize");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(host_waits.value(), 0) << "the device waits, the host does not";
  EXPECT_EQ(waits(), 1u);
  EXPECT_EQ(from_other_stream(), 1u);
  expect_handed_over(b(), block);
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_offers, go_back_to_their_own_stream_without_a_wait_newest_first) {
  void* const older = take_one_out();
  void* const newer = take_one_out();
  pool_->deallocate(a(), older, block_bytes);
  pool_->deallocate(a(), newer, block_bytes);
  const call_count device_waits("cuStreamWaitEvent");
  EXPECT_EQ(pool_->allocate(a(), block_bytes), newer);
  EXPECT_EQ(pool_->allocate(a(), block_bytes), older);
  EXPECT_EQ(device_waits.value(), 0);
  EXPECT_EQ(from_own_stream(), 2u);
  pool_->deallocate(a(), older, block_bytes);
  pool_->deallocate(a(), newer, block_bytes);
}

TEST_F(pool_offers, go_to_others_oldest_first) {
  void* const older = take_one_out();
  void* const newer = take_one_out();
  use_and_free(a(), older);
  use_and_free(a(), newer);
  EXPECT_EQ(pool_->allocate(b(), block_bytes), older);
  EXPECT_EQ(pool_->allocate(b(), block_bytes), newer);
  EXPECT_EQ(waits(), 2u) << "the second was freed later";
  expect_handed_over(b(), newer);
  pool_->deallocate(b(), older, block_bytes);
  pool_->deallocate(b(), newer, block_bytes);
}

TEST_F(pool_offers, need_no_second_wait_where_the_order_is_known) {
  void* const earlier = take_one_out();
  pool_->deallocate(a(), earlier, block_bytes);
  use_and_free(a(), large_, large_bytes);
  ASSERT_EQ(pool_->allocate(b(), large_bytes), large_);
  EXPECT_EQ(waits(), 1u);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), earlier);
  EXPECT_EQ(waits(), 1u) << "what was freed before was waited for as well";
  EXPECT_EQ(from_other_stream(), 2u);
  expect_handed_over(b(), large_, large_bytes);
  blocks_.push_back(earlier);
}

TEST_F(pool_offers, need_another_wait_for_a_later_free) {
  void* const block = take_one_out();
  for (unsigned round = 1; round <= 5; ++round) {
    use_and_free(a(), block);
    ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
    expect_handed_over(b(), block);
    pool_->deallocate(b(), block, block_bytes);
    ASSERT_EQ(pool_->allocate(a(), block_bytes), block);
    EXPECT_EQ(waits(), 2 * round);
  }
  pool_->deallocate(a(), block, block_bytes);
}

TEST_F(pool_offers, of_a_stream_that_was_forgotten_meanwhile_are_waited_for_again) {
  void* const block = take_one_out();
  for (int i = 0; i < 10; ++i) {  // B comes to know far more epochs of A than A has when it is met again
    pool_->deallocate(a(), block, block_bytes);
    ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
    if (i == 9) break;
    pool_->deallocate(b(), block, block_bytes);
    ASSERT_EQ(pool_->allocate(a(), block_bytes), block);
  }
  EXPECT_EQ(pool_->try_allocate(b(), block_bytes), nullptr);  // in search of memory the pool forgets A, which has none
  pool_->deallocate(b(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(a(), block_bytes), block);
  use_and_free(a(), block);
  EXPECT_EQ(free_in_heap(), 0u) << "it is on offer";
  const auto waits_before = waits();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(waits() - waits_before, 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_offers, cost_one_event_recorded_and_one_wait_and_no_event_made) {
  void* const block = take_one_out();
  const auto pass = [&](stream_ref from, stream_ref to) {
    pool_->deallocate(from, block, block_bytes);
    ASSERT_EQ(pool_->allocate(to, block_bytes), block);
  };
  pass(a(), b());
  const call_count records("cuEventRecord"), device_waits("cuStreamWaitEvent"), made("cuEventCreate");
  for (int i = 0; i < 50; ++i) {
    pass(b(), a());
    pass(a(), b());
  }
  EXPECT_EQ(records.value(), 100);
  EXPECT_EQ(device_waits.value(), 100);
  EXPECT_EQ(made.value(), 0) << "the one that was waited for serves again";
  for (int i = 0; i < 20; ++i) pass(b(), b());
  EXPECT_EQ(made.value(), 0) << "and the one that nobody waited for";
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_offers, are_joined_for_a_larger_request_after_one_wait) {
  void* const one = take_one_out();
  void* const other = take_one_out();
  use_and_free(a(), one);
  use_and_free(a(), other);
  void* const both = pool_->allocate(b(), large_bytes);
  EXPECT_EQ(both, std::min(one, other));
  EXPECT_EQ(waits(), 1u);
  EXPECT_EQ(from_other_stream(), 1u);
  EXPECT_EQ(from_reclaim(), 0u);
  expect_overwritten(b(), both, large_bytes);
  pool_->deallocate(b(), both, large_bytes);
}

TEST_F(pool_offers, are_cut_for_a_smaller_request_after_a_wait) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  void* const half = pool_->allocate(b(), block_bytes / 2);
  void* const other_half = pool_->allocate(b(), block_bytes / 2);
  EXPECT_EQ(std::min(half, other_half), block);
  EXPECT_EQ(waits(), 1u);
  EXPECT_EQ(from_other_stream(), 2u);
  expect_handed_over(b(), block);
  pool_->deallocate(b(), half, block_bytes / 2);
  pool_->deallocate(b(), other_half, block_bytes / 2);
}

TEST_F(pool_offers, are_joined_for_their_own_stream_without_a_wait) {
  void* const one = take_one_out();
  void* const other = take_one_out();
  keep_busy(a());
  pool_->deallocate(a(), one, block_bytes);
  pool_->deallocate(a(), other, block_bytes);
  void* const both = pool_->allocate(a(), large_bytes);
  EXPECT_EQ(both, std::min(one, other));
  EXPECT_EQ(waits(), 0u);
  EXPECT_EQ(from_own_stream(), 1u);
  pool_->deallocate(a(), both, large_bytes);
}

TEST_F(pool_offers, are_cut_for_their_own_stream_before_it_waits_for_another_one) {
  void* const its_own = take_one_out();
  void* const other = take_one_out();
  pool_->deallocate(b(), other, block_bytes);
  pool_->deallocate(a(), its_own, block_bytes);
  void* const half = pool_->allocate(a(), block_bytes / 2);
  void* const other_half = pool_->allocate(a(), block_bytes / 2);
  EXPECT_EQ(std::min(half, other_half), its_own);
  EXPECT_EQ(waits(), 0u);
  EXPECT_EQ(from_own_stream(), 2u);
  pool_->deallocate(a(), half, block_bytes / 2);
  pool_->deallocate(a(), other_half, block_bytes / 2);
  blocks_.push_back(pool_->allocate(a(), block_bytes));
  blocks_.push_back(pool_->allocate(a(), block_bytes));
}

TEST_F(pool_offers, of_two_streams_are_joined_by_a_reclaim) {
  void* const one = take_one_out();
  void* const other = take_one_out();
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  use_and_free(a(), one);
  use_and_free(b(), other);
  void* const both = pool_->allocate(c.view(), large_bytes);
  EXPECT_EQ(both, std::min(one, other));
  EXPECT_EQ(from_reclaim(), 1u);
  expect_overwritten(c.view(), both, large_bytes);
  pool_->deallocate(c.view(), both, large_bytes);
}

TEST_F(pool_offers, are_not_given_where_they_are_not_aligned_as_was_asked) {
  const auto is_aligned = [](const void* block) {
    return reinterpret_cast<std::uintptr_t>(block) % (large_bytes) == 0;
  };
  const auto odd = std::find_if_not(blocks_.begin(), blocks_.end(), is_aligned);
  ASSERT_NE(odd, blocks_.end());
  pool_->deallocate(a(), *odd, block_bytes);
  for (const stream_ref stream : {a(), b()}) {
    EXPECT_EQ(pool_->try_allocate(stream, block_bytes, large_bytes), nullptr);
  }
  EXPECT_EQ(pool_->allocate(b(), block_bytes), *odd);
}

TEST_F(pool_offers, beyond_the_most_go_to_the_heap_oldest_first_and_are_had_after_one_wait) {
  const auto free_another = [&] { pool_->deallocate(a(), take_one_out(), block_bytes); };
  void* const first = take_one_out();
  void* const oldest = take_one_out();
  pool_->deallocate(a(), first, block_bytes);
  use_and_free(a(), oldest);
  for (int i = 0; i < 10; ++i) free_another();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), first) << "somebody waits, so that frees go on being marked";
  blocks_.push_back(first);
  for (std::size_t on_offer = 1 + 10; on_offer < offered_blocks::most; ++on_offer) free_another();
  EXPECT_EQ(free_in_heap(), 0u);
  free_another();
  EXPECT_EQ(free_in_heap(), block_bytes);
  for (std::size_t i = 0; i < offered_blocks::most; ++i) {
    blocks_.push_back(pool_->allocate(a(), block_bytes));
    EXPECT_NE(blocks_.back(), oldest);
  }
  const auto waits_before = waits();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), oldest);
  EXPECT_EQ(waits() - waits_before, 1u);
  expect_handed_over(b(), oldest);
  EXPECT_EQ(from_reclaim(), 0u);
  blocks_.push_back(oldest);
}

TEST_F(pool_offers, that_no_event_covers_are_reclaimed_behind_all_work) {
  void* const block = take_one_out();
  const std::size_t before = in_use();
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);
  use_and_free(a(), block);
  EXPECT_EQ(in_use(), before - block_bytes);
  EXPECT_EQ(pool_->counters().events, before_.events);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(from_reclaim(), 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_offers, that_no_event_covers_are_their_own_streams_at_once) {
  void* const block = take_one_out();
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);
  pool_->deallocate(a(), block, block_bytes);
  EXPECT_EQ(pool_->allocate(a(), block_bytes), block);
  EXPECT_EQ(from_own_stream(), 1u);
  blocks_.push_back(block);
}

TEST_F(pool_offers, for_which_a_wait_failed_can_be_had_afterwards) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  const auto before = pool_->counters();
  const std::size_t used = in_use();
  cenote_sim_fail("cuStreamWaitEvent", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(pool_->allocate(b(), block_bytes), cuda_error);
  const auto after = pool_->counters();
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.from_other_stream, before.from_other_stream);
  EXPECT_EQ(after.waits, before.waits);
  EXPECT_EQ(in_use(), used);
  pool_->check();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(waits(), 1u);
  EXPECT_EQ(from_other_stream(), 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_offers, are_free_to_all_who_ask_how_much_is_in_use) {
  void* const block = take_one_out();
  const std::size_t before = in_use();
  pool_->deallocate(a(), block, block_bytes);
  EXPECT_EQ(in_use(), before - block_bytes);
  EXPECT_EQ(free_in_heap(), 0u) << "it is on offer";
  EXPECT_NE(pool_->map().find(" free"), std::string::npos) << pool_->map();
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  EXPECT_EQ(in_use(), before);
  EXPECT_EQ(pool_->map().find(" free"), std::string::npos) << pool_->map();
}

TEST_F(pool_offers, are_not_freed_twice) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  const std::size_t before = in_use();
  {
    captured_stderr said;
    pool_->deallocate(a(), block, block_bytes);
    pool_->deallocate(b(), block, block_bytes);
    const std::string text = said.text();
    EXPECT_NE(text.find("freed already"), std::string::npos) << text;
  }
  EXPECT_EQ(in_use(), before);
  pool_->check();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(waits(), 1u);
  expect_handed_over(b(), block);
  EXPECT_EQ(pool_->try_allocate(b(), block_bytes), nullptr) << "it was given out twice";
  blocks_.push_back(block);
}

TEST_F(pool_offers, on_the_legacy_default_stream_are_as_any_others) {
  for (const auto& [from, to] : {std::pair{a(), stream_ref{}}, std::pair{stream_ref{}, b()}}) {
    void* const block = take_one_out();
    const auto waits_before = waits();
    use_and_free(from, block);
    EXPECT_EQ(free_in_heap(), 0u) << "it is on offer";
    ASSERT_EQ(pool_->allocate(to, block_bytes), block);
    EXPECT_EQ(waits() - waits_before, 1u);
    expect_handed_over(to, block);
    blocks_.push_back(block);
  }
}

/// At some point so many streams are known that the idle ones are forgotten. Whenever that is, the last of them still
/// has a block on offer, which is taken off afterwards.
TEST_F(pool_offers, keep_their_stream_from_being_forgotten) {
  void* passing = take_one_out();
  void* last = take_one_out();
  for (int count = 50; count < 80; ++count) {
    pool_->deallocate(b(), last, block_bytes);
    for (int i = 0; i < count; ++i) {
      const cuda_stream once(0, cuda_stream::kind::non_blocking);
      pool_->deallocate(once.view(), passing, block_bytes);
      passing = pool_->allocate(a(), block_bytes);
    }
    EXPECT_EQ(pool_->try_allocate(a(), pool_bytes), nullptr);  // in search of memory the pool forgets all but A
    last = pool_->allocate(a(), block_bytes);
  }
  EXPECT_EQ(from_reclaim(), 0u);
  blocks_.insert(blocks_.end(), {passing, last});
}

/// For a sanitizer as well: there is less than the threads want, so that what one frees is the next one's.
TEST_F(pool_offers, pass_between_threads_that_compete_for_them) {
  for (int i = 0; i < 2; ++i) pool_->deallocate(a(), take_one_out(), block_bytes);
  const auto compete = [&](unsigned char token) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < 1'000; ++i) {
      const std::size_t bytes = i % 4 == 0 ? block_bytes / 2 : block_bytes;
      void* const block = pool_->try_allocate(own.view(), bytes);
      if (block == nullptr) continue;
      fill_async(block, token, bytes, own.view(), 0);
      if (i % 8 == 0) {
        EXPECT_TRUE(all_are(read(block, bytes, own.view()), token)) << "two have the block";
      }
      pool_->deallocate(own.view(), block, bytes);
    }
  };
  std::thread one(compete, 1), two(compete, 2), three(compete, 3);
  one.join();
  two.join();
  three.join();
}

using pool_of_equal_blocks = simulated_device;

/// Who may have a block gets one: as many as there are blocks have one or ask for one.
TEST_F(pool_of_equal_blocks, is_never_out_of_memory_while_one_is_free) {
  constexpr int threads = 4, blocks = 4;
  const auto pool = make_pool(blocks * block_bytes);
  std::counting_semaphore<> room(blocks);
  std::atomic<int> refused{0};
  const auto come_and_go = [&](unsigned seed) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    std::mt19937 random(seed);
    std::vector<void*> held;
    const auto free_one = [&] {
      pool->deallocate(own.view(), held.back(), block_bytes);
      held.pop_back();
      room.release();
    };
    for (int i = 0; i < 40'000; ++i) {
      if (random() % 2 == 0 && room.try_acquire()) {
        held.push_back(pool->try_allocate(own.view(), block_bytes));
        refused += held.back() == nullptr ? 1 : 0;
      } else if (!held.empty()) {
        free_one();
      }
    }
    while (!held.empty()) free_one();
  };
  {
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; ++t) all.emplace_back(come_and_go, t);
  }
  EXPECT_EQ(refused, 0);
}

template <class Stream>
class pool_offers_of_a_stream : public pool_offers {};

using kinds_of_streams = testing::Types<stream_of_ours, foreign_stream>;
TYPED_TEST_SUITE(pool_offers_of_a_stream, kinds_of_streams);

TYPED_TEST(pool_offers_of_a_stream, that_is_gone_go_to_others_after_its_work) {
  void* const block = this->take_one_out();
  {
    const TypeParam gone;
    this->use_and_free(gone.view(), block);
  }
  ASSERT_EQ(this->pool_->allocate(this->b(), block_bytes), block);
  EXPECT_EQ(this->waits(), 1u);
  EXPECT_EQ(this->from_other_stream(), 1u);
  this->expect_handed_over(this->b(), block);
  this->blocks_.push_back(block);
}

TYPED_TEST(pool_offers_of_a_stream, that_is_gone_are_not_the_own_of_one_with_its_handle) {
  void* const block = this->take_one_out();
  std::optional<TypeParam> old_stream(std::in_place);
  const stream_ref handle = old_stream->view();
  this->use_and_free(handle, block);
  old_stream.reset();
  const TypeParam new_stream;
  ASSERT_EQ(new_stream.view(), handle) << "the driver uses handle values again";
  ASSERT_EQ(this->pool_->allocate(handle, block_bytes), block);
  EXPECT_EQ(this->waits(), 1u);
  EXPECT_EQ(this->from_own_stream(), 0u);
  this->expect_handed_over(handle, block);
  this->pool_->deallocate(handle, block, block_bytes);
}

/// A capture in the strictest mode, of a stream that the legacy default stream waits for.
class pool_offers_beside_a_capture : public pool_offers {
 public:
  void SetUp() override {
    pool_offers::SetUp();
    captured_.emplace(0);
  }

  void TearDown() override {
    captured_.reset();
    pool_offers::TearDown();
  }

  void begin() { ASSERT_EQ(cuStreamBeginCapture(captured(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS); }

  void end() {
    CUgraph graph = nullptr;
    ASSERT_EQ(cuStreamEndCapture(captured(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
    cuGraphDestroy(graph);
  }

  CUstream captured() const { return captured_->value(); }

  std::optional<cuda_stream> captured_;
};

TEST_F(pool_offers_beside_a_capture, are_not_given_to_it_before_the_work_on_them_is_done) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  begin();
  EXPECT_EQ(pool_->try_allocate(captured(), block_bytes), nullptr);
  end();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block) << "nothing was lost";
  EXPECT_EQ(waits(), 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_offers_beside_a_capture, are_given_to_it_once_the_work_on_them_is_done) {
  void* const block = take_one_out();
  pool_->deallocate(a(), block, block_bytes);
  synchronize(a(), 0);
  begin();
  EXPECT_EQ(pool_->try_allocate(captured(), block_bytes), block);
  end();
  EXPECT_EQ(waits(), 0u);
  pool_->deallocate(captured(), block, block_bytes);
}

TEST_F(pool_offers_beside_a_capture, hold_nothing_that_the_graph_uses) {
  void* const block = take_one_out();
  pool_->deallocate(a(), block, block_bytes);
  synchronize(a(), 0);
  begin();
  ASSERT_EQ(pool_->try_allocate(captured(), block_bytes), block);
  end();
  pool_->deallocate(a(), block, block_bytes);
  for (const stream_ref stream : {a(), b()}) EXPECT_EQ(pool_->try_allocate(stream, block_bytes), nullptr);
}

TEST_F(pool_offers_beside_a_capture, are_kept_for_later_where_the_legacy_default_stream_may_not_wait) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  const auto before = pool_->counters();
  begin();
  EXPECT_EQ(pool_->try_allocate({}, block_bytes), nullptr);
  end();
  EXPECT_EQ(pool_->counters().allocations, before.allocations);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream);
  ASSERT_EQ(pool_->allocate({}, block_bytes), block);
  EXPECT_EQ(waits(), 1u);
  expect_handed_over({}, block);
  blocks_.push_back(block);
}

TEST_F(pool_offers_beside_a_capture, are_not_made_where_the_legacy_default_stream_may_not_be_named) {
  void* const block = take_one_out();
  void* const earlier = take_one_out();
  pool_->deallocate({}, earlier, block_bytes);  // the pool has met the stream
  begin();
  pool_->deallocate({}, block, block_bytes);
  end();
  EXPECT_EQ(free_in_heap(), block_bytes);
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  EXPECT_EQ(from_reclaim(), 1u) << "one has no event";
}

/// A pool of one block, which is on offer.
class pool_of_an_offer : public simulated_device {
 public:
  void SetUp() override {
    simulated_device::SetUp();
    pool_ = make_pool(block_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    void* const block = pool_->allocate(a_->view(), block_bytes);
    pool_->deallocate(a_->view(), block, block_bytes);
    ASSERT_EQ(pool_->allocate(b_->view(), block_bytes), block);
    fill_async(block, 1, block_bytes, b_->view(), 0);
    pool_->deallocate(b_->view(), block, block_bytes);
    EXPECT_EQ(pool_->state().largest_free, 0u) << "it is on offer";
    EXPECT_EQ(pool_->state().in_use, 0u);
  }

  void TearDown() override {
    a_.reset();
    b_.reset();
    pool_.reset();
    simulated_device::TearDown();
  }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(pool_of_an_offer, gives_its_chunk_back_once_the_work_is_done) {
  synchronize(b_->view(), 0);
  EXPECT_EQ(pool_->trim(), block_bytes);
  EXPECT_EQ(pool_->pool_size(), 0u);
  pool_->check();
}

TEST_F(pool_of_an_offer, gives_its_chunk_back_beside_a_capture_as_an_event_covers_the_work) {
  synchronize(b_->view(), 0);
  capture_begins(0);
  EXPECT_EQ(pool_->trim(), block_bytes);
  capture_ended(0);
}

TEST_F(pool_of_an_offer, is_destroyed_without_a_word) {
  captured_stderr said;
  pool_.reset();
  EXPECT_EQ(said.text(), "");
}

}  // namespace
}  // namespace cenote::test
