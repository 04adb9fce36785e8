// What a program costs that makes many streams and seldom waits, and that its work is ordered all the same.
#include <malloc.h>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimManyStreams : public Sim {
 protected:
  /// The heap that `rounds` of `work` take, until all of it is waited for.
  template <class Work>
  static double heap_bytes_of(int rounds, Work&& work) {
    const auto before = mallinfo2().uordblks;
    for (int round = 0; round < rounds; ++round) {
      work();
    }
    const auto taken = mallinfo2().uordblks - before;
    EXPECT_OK(cuCtxSynchronize());
    return static_cast<double>(taken);
  }

  /// Twice the work takes about twice the heap.
  template <class Work>
  static void expect_cost_in_proportion(Work&& work) {
    const double once = heap_bytes_of(1000, work);
    const double twice = heap_bytes_of(2000, work);
    EXPECT_LE(twice, 2.5 * once);  // under a sanitizer, both are 0
  }
};

TEST_F(SimManyStreams, work_of_the_legacy_stream_between_that_of_new_ones_costs_the_same_each_time) {
  const CUdeviceptr memory = make_memory();
  expect_cost_in_proportion([&] {
    EXPECT_OK(cuMemsetD8Async(memory, 1, 8, make_stream(CU_STREAM_DEFAULT)));
    EXPECT_OK(cuMemsetD8Async(memory, 1, 8, CU_STREAM_LEGACY));
  });
}

TEST_F(SimManyStreams, events_over_the_context_cost_the_same_each_time) {
  const CUdeviceptr memory = make_memory();
  expect_cost_in_proportion([&] {
    EXPECT_OK(cuMemsetD8Async(memory, 1, 8, make_stream()));
    EXPECT_OK(cuCtxRecordEvent(contexts[0], make_event()));
  });
}

TEST_F(SimManyStreams, streams_that_have_nothing_to_do_cost_nothing_once_destroyed) {
  const CUdeviceptr memory = make_memory();
  const auto round = [&] {
    const CUstream stream = make_stream(CU_STREAM_DEFAULT);
    EXPECT_OK(cuMemsetD8Async(memory, 1, 8, stream));
    EXPECT_OK(cuStreamSynchronize(stream));
    EXPECT_OK(cuStreamDestroy(stream));
  };
  round();
  const double taken = heap_bytes_of(1000, round);
  EXPECT_LT(taken, 16.0 * KiB);
}

TEST_F(SimManyStreams, the_legacy_stream_comes_after_work_that_was_queued_since_its_last_piece_and_before) {
  unsigned char* const bytes = make_pinned(3);
  const CUstream first = make_stream(CU_STREAM_DEFAULT);
  const CUstream second = make_stream(CU_STREAM_DEFAULT);
  const CUdeviceptr at = device_address(bytes);
  EXPECT_OK(cuMemsetD8Async(at, 1, 1, first));
  EXPECT_OK(cuMemsetD8Async(at + 2, 1, 1, CU_STREAM_LEGACY));
  EXPECT_OK(cuMemsetD8Async(at + 1, 1, 1, second));
  EXPECT_OK(cuMemsetD8Async(at + 2, 2, 1, CU_STREAM_LEGACY));
  EXPECT_OK(cuStreamSynchronize(CU_STREAM_LEGACY));
  EXPECT_EQ(1, bytes[0]);
  EXPECT_EQ(1, bytes[1]);
  EXPECT_EQ(2, bytes[2]);
  EXPECT_OK(cuMemsetD8Async(at, 3, 1, first));
  EXPECT_OK(cuMemsetD8Async(at + 2, 3, 1, CU_STREAM_LEGACY));
  EXPECT_OK(cuStreamSynchronize(CU_STREAM_LEGACY));
  EXPECT_EQ(3, bytes[0]) << "a stream that was waited for has new work";
  EXPECT_EQ(0U, cenote_sim_pending());
}

TEST_F(SimManyStreams, waiting_for_the_legacy_stream_waits_for_blocking_streams_that_it_has_no_work_after) {
  unsigned char* const bytes = make_pinned(1);
  EXPECT_OK(cuMemsetD8Async(device_address(bytes), 1, 1, make_stream(CU_STREAM_DEFAULT)));
  EXPECT_OK(cuStreamSynchronize(CU_STREAM_LEGACY));
  EXPECT_EQ(1, bytes[0]);
}

TEST_F(SimManyStreams, each_event_over_the_context_covers_what_was_queued_before_it_and_no_more) {
  const CUdeviceptr memory = make_memory();
  const CUstream one = make_stream();
  const CUstream other = make_stream();
  const CUevent first = make_event();
  const CUevent second = make_event();
  const CUevent same = make_event();
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, one));
  EXPECT_OK(cuCtxRecordEvent(contexts[0], first));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, other));
  EXPECT_OK(cuCtxRecordEvent(contexts[0], second));
  EXPECT_OK(cuCtxRecordEvent(contexts[0], same));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, other));

  EXPECT_OK(cuEventSynchronize(first));
  EXPECT_EQ(2U, cenote_sim_pending());
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuEventQuery(same)) << "and makes one step";
  EXPECT_EQ(1U, cenote_sim_pending());
  EXPECT_OK(cuEventQuery(second));
  EXPECT_OK(cuEventQuery(same));
  EXPECT_OK(cuStreamSynchronize(other));
}

TEST_F(SimManyStreams, a_stream_that_waits_for_an_event_over_the_context_comes_after_all_that_it_covers) {
  const CUdeviceptr memory = make_memory();
  const CUstream waiting = make_stream();
  const CUevent event = make_event();
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, make_stream()));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, make_stream()));
  EXPECT_OK(cuCtxRecordEvent(contexts[0], event));
  EXPECT_OK(cuStreamWaitEvent(waiting, event, 0));
  EXPECT_OK(cuStreamSynchronize(waiting));
  EXPECT_EQ(0U, cenote_sim_pending());
}

}  // namespace
}  // namespace cenote::sim_test
