// Blocks whose last use is on streams that nobody names when they are freed.
#include "cenote/surface/reclaimer.hpp"

#include "cenote/cenote.h"
#include "support/clients.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class reclaiming : public clients {
 protected:
  // The pool is one block, so that the next allocation is of the same memory or must wait for it.
  static constexpr std::size_t bytes = 4 * MiB;

  void SetUp() override {
    clients::SetUp();
    pool_ = use_pool(bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    EXPECT_EQ(reclaimer::of(0).held_back(), 0u);
    pool_->check();
    cenote_sim_drain();
    a_.reset();
    b_.reset();
    pool_.reset();
    clients::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  /// Allocated on A, used on B, said to be so or not, freed on A, written anew on A. Whether B's work got A's old bytes
  /// and the new owner kept its own.
  bool bytes_are_right(bool record_stream) {
    void* const witness = device_allocate(0, bytes);
    void* const block = client_allocate(client_, 0, bytes, a());
    fill_async(block, 0xAA, bytes, a(), 0);
    wait(b(), *event::record(a(), 0), 0);
    copy_async(witness, block, bytes, b(), 0);
    if (record_stream) client_record_stream(block, b());
    client_deallocate(block, a());

    void* const again = client_allocate(client_, 0, bytes, a());
    EXPECT_EQ(again, block);
    fill_async(again, 0xBB, bytes, a(), 0);
    synchronize(a(), 0);
    cenote_sim_drain();
    const bool right = all_are(read(witness, bytes, b()), 0xAA) && all_are(read(again, bytes, a()), 0xBB);
    client_deallocate(again, a());
    device_free(0, witness);
    return right;
  }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(reclaiming, a_recorded_block_is_not_reused_before_the_work_of_the_recorded_stream) {
  EXPECT_TRUE(bytes_are_right(true));
}

TEST_F(reclaiming, bytes_are_wrong_where_the_second_stream_is_not_recorded) {
  EXPECT_FALSE(bytes_are_right(false)) << "proof that the test above can fail";
}

TEST_F(reclaiming, recording_the_stream_of_the_allocation_changes_nothing) {
  void* const block = client_allocate(client_, 0, bytes, a());
  client_record_stream(block, a());
  const call_count context_events("cuCtxRecordEvent");
  client_deallocate(block, a());
  EXPECT_EQ(context_events.value(), 0);
}

TEST_F(reclaiming, a_free_on_another_stream_comes_after_all_work) {
  void* const block = client_allocate(client_, 0, bytes, a());
  fill_async(block, 0xAA, bytes, a(), 0);
  client_deallocate(block, b());  // not ordered with A
  void* const again = client_allocate(client_, 0, bytes, b());
  fill_async(again, 0xBB, bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(again, bytes, b()), 0xBB));
  client_deallocate(again, b());
}

TEST_F(reclaiming, a_free_on_another_devices_stream_comes_after_its_work) {
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  void* const witness = device_allocate(0, bytes);
  fill_async(witness, 0xAA, bytes, far, 0);
  void* const block = client_allocate(client_, 0, bytes, a());
  copy_async(block, witness, bytes, far, 0);
  client_deallocate(block, far);
  void* const again = client_allocate(client_, 0, bytes, b());
  fill_async(again, 0xBB, bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(again, bytes, b()), 0xBB));
  client_deallocate(again, b());
  device_free(0, witness);
}

TEST_F(reclaiming, a_recorded_stream_may_be_another_devices) {
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  void* const witness = device_allocate(0, bytes);
  fill_async(witness, 0xAA, bytes, far, 0);
  for (const bool is_default : {false, true}) {
    void* const block = client_allocate(client_, 0, bytes, a());
    const device_scope there(1);
    const stream_ref used_on = is_default ? stream_ref{} : far.view();
    copy_async(block, witness, bytes, used_on, 1);
    client_record_stream(block, used_on);
    client_deallocate(block, a());
    void* const again = client_allocate(client_, 0, bytes, a());
    fill_async(again, 0xBB, bytes, a(), 0);
    synchronize(a(), 0);
    cenote_sim_drain();
    EXPECT_TRUE(all_are(read(again, bytes, a()), 0xBB)) << (is_default ? "its default stream" : "one of its streams");
    client_deallocate(again, a());
  }
  device_free(0, witness);
}

TEST_F(reclaiming, frees_that_wait_for_another_device_are_held_back_during_its_captures) {
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  void* const everywhere = client_allocate(client_, 0, 256, a());
  void* const here = client_allocate(client_, 0, 256, a());
  client_record_stream(everywhere, far);
  client_share(here);
  cenote_capture_begin(1);
  client_deallocate(everywhere, a());
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  client_deallocate(here, a());
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u) << "the other waits for its own device alone";
  cenote_capture_end(1);
  EXPECT_EQ(reclaimer::of(0).held_back(), 0u) << "the end of the other device's capture frees them";
}

TEST_F(reclaiming, no_stream_of_the_users_is_made_to_wait) {
  void* const block = client_allocate(client_, 0, bytes, a());
  client_share(block);
  fill_async(block, 1, bytes, b(), 0);
  void* const other = device_allocate(0, 256);
  client_deallocate(block, a());
  fill_async(other, 1, 256, a(), 0);
  synchronize(a(), 0);
  EXPECT_FALSE(is_done(b(), 0)) << "A did not have to wait for B";
  cenote_sim_drain();
  device_free(0, other);
}

TEST_F(reclaiming, frees_are_held_back_while_a_capture_is_underway) {
  void* const block = client_allocate(client_, 0, bytes, a());
  client_share(block);
  reclaimer& reclaim = reclaimer::of(0);
  cenote_capture_begin(0);
  cenote_capture_begin(0);
  ASSERT_EQ(cuStreamBeginCapture(b().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  client_deallocate(block, a());
  EXPECT_EQ(reclaim.held_back(), 1u);
  EXPECT_EQ(pool_->state().in_use, bytes);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(b().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  cenote_capture_end(0);
  EXPECT_EQ(reclaim.held_back(), 1u) << "another capture is underway";
  cenote_capture_end(0);
  EXPECT_EQ(reclaim.held_back(), 0u);
  EXPECT_EQ(pool_->state().in_use, 0u);
}

TEST_F(reclaiming, a_free_on_a_stream_being_captured_is_held_back_until_a_later_one) {
  void* const block = client_allocate(client_, 0, 256, a());
  void* const later = client_allocate(client_, 0, 256, a());
  client_share(later);
  ASSERT_EQ(cuStreamBeginCapture(a().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  client_deallocate(block, a());
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(a().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  client_deallocate(later, a());
  EXPECT_EQ(reclaimer::of(0).held_back(), 0u);
  EXPECT_EQ(pool_->state().in_use, 0u);
}

TEST_F(reclaiming, a_capture_that_finds_no_memory_leaves_held_back_what_is) {
  void* const block = client_allocate(client_, 0, bytes, a());
  ASSERT_EQ(cuStreamBeginCapture(a().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  client_deallocate(block, a());
  EXPECT_THROW(client_allocate(client_, 0, bytes, a()), out_of_memory);
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(a().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  client_deallocate(client_allocate(client_, 0, bytes, b()), b());
  EXPECT_EQ(reclaimer::of(0).held_back(), 0u) << "who finds none outside has it";
}

TEST_F(reclaiming, a_free_that_could_not_be_ordered_is_tried_again_with_the_next) {
  void* const first = client_allocate(client_, 0, 256, a());
  void* const second = client_allocate(client_, 0, 256, a());
  client_share(first);
  client_share(second);
  cenote_sim_fail("cuCtxRecordEvent", 1, CUDA_ERROR_UNKNOWN);
  client_deallocate(first, a());
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  client_deallocate(second, a());
  EXPECT_EQ(pool_->state().in_use, 0u);
}

TEST_F(reclaiming, an_end_without_a_begin_does_nothing) {
  cenote_capture_end(0);
  void* const block = client_allocate(client_, 0, 256, a());
  client_share(block);
  client_deallocate(block, a());
  EXPECT_EQ(pool_->state().in_use, 0u);
}

TEST_F(reclaiming, the_resource_is_kept_until_its_block_has_been_freed) {
  void* const block = client_allocate(client_, 0, 256, a());
  client_share(block);
  const std::weak_ptr<memory_resource> watched = pool_;
  reset_resources();
  cenote_capture_begin(0);
  client_deallocate(block, a());
  pool_.reset();
  EXPECT_FALSE(watched.expired());
  cenote_capture_end(0);
  EXPECT_TRUE(watched.expired());
  pool_ = use_pool(bytes);
}

TEST_F(reclaiming, what_was_held_back_is_freed_before_memory_is_said_to_be_out) {
  void* const block = client_allocate(client_, 0, bytes, a());
  ASSERT_EQ(cuStreamBeginCapture(a().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  client_deallocate(block, a());
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(a().value(), &graph), CUDA_SUCCESS);
  cuGraphDestroy(graph);
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  void* const again = client_allocate(client_, 0, bytes, a());
  EXPECT_EQ(again, block);
  client_deallocate(again, a());
}

}  // namespace
}  // namespace cenote::test
