// Blocks that are freed while another stream goes without: they pass to it after the former owner's work, and are
// nobody's loss until then. Work runs only when something waits for it, so an order that is missing shows
// as wrong bytes.
#include <algorithm>
#include <set>
#include <thread>

#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/pool_under_pressure.hpp"

namespace cenote::test {
namespace {

TEST_F(pool_under_pressure, go_to_another_stream_after_the_work_of_the_former_owner) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  const call_count host_waits("cuStreamSynchronize");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(host_waits.value(), 0) << "the device waits, the host does not";
  EXPECT_EQ(waits(), 1u);
  EXPECT_EQ(from_other_stream(), 1u);
  expect_handed_over(b(), block);
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_under_pressure, go_back_to_their_own_stream_without_a_wait) {
  void* const older = take_one_out();
  void* const newer = take_one_out();
  pool_->deallocate(a(), older, block_bytes);
  pool_->deallocate(a(), newer, block_bytes);
  const call_count device_waits("cuStreamWaitEvent");
  const std::set<void*> again{pool_->allocate(a(), block_bytes), pool_->allocate(a(), block_bytes)};
  EXPECT_EQ(again, (std::set<void*>{older, newer}));
  EXPECT_EQ(device_waits.value(), 0);
  EXPECT_EQ(from_own_stream(), 2u);
  pool_->deallocate(a(), older, block_bytes);
  pool_->deallocate(a(), newer, block_bytes);
}

TEST_F(pool_under_pressure, go_to_others_after_a_wait_for_the_later_one) {
  void* const older = take_one_out();
  void* const newer = take_one_out();
  use_and_free(a(), older);
  use_and_free(a(), newer);
  const std::set<void*> both{pool_->allocate(b(), block_bytes), pool_->allocate(b(), block_bytes)};
  EXPECT_EQ(both, (std::set<void*>{older, newer}));
  EXPECT_GE(waits(), 1u);
  expect_handed_over(b(), newer);
  pool_->deallocate(b(), older, block_bytes);
  pool_->deallocate(b(), newer, block_bytes);
}

TEST_F(pool_under_pressure, need_no_second_wait_where_the_order_is_known) {
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

TEST_F(pool_under_pressure, need_another_wait_for_a_later_free) {
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

TEST_F(pool_under_pressure, of_a_stream_that_was_forgotten_meanwhile_are_waited_for_again) {
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
  const auto waits_before = waits();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(waits() - waits_before, 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_under_pressure, cost_one_event_recorded_and_one_wait_and_no_event_made) {
  void* const block = take_one_out();
  const auto pass = [&](stream_ref from, stream_ref to) {
    pool_->deallocate(from, block, block_bytes);
    ASSERT_EQ(pool_->allocate(to, block_bytes), block);
  };
  for (int i = 0; i < 20; ++i) {  // until each stream keeps as many events as it may
    pass(a(), b());
    pass(b(), a());
  }
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

TEST_F(pool_under_pressure, are_joined_for_a_larger_request_after_one_wait) {
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

TEST_F(pool_under_pressure, are_cut_for_a_smaller_request_after_a_wait) {
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

TEST_F(pool_under_pressure, are_joined_for_their_own_stream_without_a_wait) {
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

TEST_F(pool_under_pressure, are_cut_for_their_own_stream_before_it_waits_for_another_one) {
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

TEST_F(pool_under_pressure, of_two_streams_are_joined_by_a_reclaim) {
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

TEST_F(pool_under_pressure, are_not_given_where_they_are_not_aligned_as_was_asked) {
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

TEST_F(pool_under_pressure, that_no_event_covers_are_reclaimed_behind_all_work) {
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

TEST_F(pool_under_pressure, that_no_event_covers_are_their_own_streams_at_once) {
  void* const block = take_one_out();
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);
  pool_->deallocate(a(), block, block_bytes);
  EXPECT_EQ(pool_->allocate(a(), block_bytes), block);
  EXPECT_EQ(from_own_stream(), 1u);
  blocks_.push_back(block);
}

TEST_F(pool_under_pressure, for_which_a_wait_failed_can_be_had_afterwards) {
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

TEST_F(pool_under_pressure, are_free_to_all_who_ask_how_much_is_in_use) {
  void* const block = take_one_out();
  const std::size_t before = in_use();
  pool_->deallocate(a(), block, block_bytes);
  EXPECT_EQ(in_use(), before - block_bytes);
  EXPECT_NE(pool_->map().find(" free"), std::string::npos) << pool_->map();
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  EXPECT_EQ(in_use(), before);
  EXPECT_EQ(pool_->map().find(" free"), std::string::npos) << pool_->map();
}

TEST_F(pool_under_pressure, are_not_freed_twice) {
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

TEST_F(pool_under_pressure, on_the_legacy_default_stream_are_as_any_others) {
  for (const auto& [from, to] : {std::pair{a(), stream_ref{}}, std::pair{stream_ref{}, b()}}) {
    void* const block = take_one_out();
    const auto waits_before = waits();
    use_and_free(from, block);
    ASSERT_EQ(pool_->allocate(to, block_bytes), block);
    EXPECT_EQ(waits() - waits_before, 1u);
    expect_handed_over(to, block);
    blocks_.push_back(block);
  }
}

/// At some point so many streams are known that the idle ones are forgotten. Whenever that is, the last of them still
/// has a block that is free and marked.
TEST_F(pool_under_pressure, keep_their_stream_from_being_forgotten) {
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
TEST_F(pool_under_pressure, pass_between_threads_that_compete_for_them) {
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

template <class Stream>
class pool_under_pressure_of_a_stream : public pool_under_pressure {};

using kinds_of_streams = testing::Types<stream_of_ours, foreign_stream>;
TYPED_TEST_SUITE(pool_under_pressure_of_a_stream, kinds_of_streams);

TYPED_TEST(pool_under_pressure_of_a_stream, that_is_gone_go_to_others_after_its_work) {
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

TYPED_TEST(pool_under_pressure_of_a_stream, that_is_gone_are_not_the_own_of_one_with_its_handle) {
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

/// A pool of one block, which is free and marked.
class pool_of_a_marked_block : public simulated_device {
 public:
  void SetUp() override {
    simulated_device::SetUp();
    pool_ = make_bounded_pool(block_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    void* const block = pool_->allocate(a_->view(), block_bytes);
    pool_->deallocate(a_->view(), block, block_bytes);
    ASSERT_EQ(pool_->allocate(b_->view(), block_bytes), block);
    fill_async(block, 1, block_bytes, b_->view(), 0);
    pool_->deallocate(b_->view(), block, block_bytes);
    EXPECT_EQ(pool_->state().largest_free, block_bytes) << "it could be had";
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

TEST_F(pool_of_a_marked_block, gives_its_chunk_back_once_the_work_is_done) {
  synchronize(b_->view(), 0);
  EXPECT_EQ(pool_->trim(), block_bytes);
  EXPECT_EQ(pool_->pool_size(), 0u);
  pool_->check();
}

TEST_F(pool_of_a_marked_block, gives_its_chunk_back_beside_a_capture_as_an_event_covers_the_work) {
  synchronize(b_->view(), 0);
  capture_begins(0);
  EXPECT_EQ(pool_->trim(), block_bytes);
  capture_ended(0);
}

TEST_F(pool_of_a_marked_block, is_destroyed_without_a_word) {
  captured_stderr said;
  pool_.reset();
  EXPECT_EQ(said.text(), "");
}

}  // namespace
}  // namespace cenote::test
