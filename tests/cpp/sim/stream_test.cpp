// Streams, events and the order of work.
#include <atomic>
#include <thread>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimStream : public Sim {
 protected:
  unsigned long long id_of(CUstream stream) {
    unsigned long long id = 0;
    EXPECT_OK(cuStreamGetId(stream, &id));
    return id;
  }
};

TEST_F(SimStream, work_is_not_done_until_something_waits_for_it) {
  const CUstream stream = make_stream();
  unsigned char* const memory = make_pinned(KiB, 1);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 2, KiB, stream));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(1U, cenote_sim_pending());
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(2, memory[0]);
  EXPECT_EQ(2, memory[KiB - 1]);
}

TEST_F(SimStream, a_waiting_stream_pulls_in_only_what_it_waits_for) {
  const CUstream producer = make_stream();
  const CUstream consumer = make_stream();
  unsigned char* const memory = make_pinned(3, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, producer));
  const CUevent event = record_on(producer);
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, producer));
  EXPECT_OK(cuStreamWaitEvent(consumer, event, 0));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 2), 1, 1, consumer));
  EXPECT_OK(cuStreamSynchronize(consumer));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(0, memory[1]) << "this came after the record, and nobody waited for it";
  EXPECT_EQ(1, memory[2]);
}

TEST_F(SimStream, unordered_access_shows_wrong_bytes) {
  const CUstream writer = make_stream();
  const CUstream reader = make_stream();
  const CUdeviceptr memory = make_memory();
  unsigned char* const seen = make_pinned(1, 0);
  const unsigned char before = 7;
  EXPECT_OK(cuMemcpyHtoD(memory, &before, 1));
  EXPECT_OK(cuMemsetD8Async(memory, 9, 1, writer));
  EXPECT_OK(cuMemcpyAsync(device_address(seen), memory, 1, reader));
  EXPECT_OK(cuStreamSynchronize(reader));
  EXPECT_EQ(7, seen[0]) << "no event orders the reader after the writer";

  const CUevent written = record_on(writer);
  EXPECT_OK(cuStreamWaitEvent(reader, written, 0));
  EXPECT_OK(cuMemcpyAsync(device_address(seen), memory, 1, reader));
  EXPECT_OK(cuStreamSynchronize(reader));
  EXPECT_EQ(9, seen[0]);
}

TEST_F(SimStream, a_wait_binds_to_the_record_that_is_current_at_the_call) {
  const CUstream producer = make_stream();
  const CUstream consumer = make_stream();
  unsigned char* const memory = make_pinned(2, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, producer));
  const CUevent event = record_on(producer);
  EXPECT_OK(cuStreamWaitEvent(consumer, event, 0));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, producer));
  EXPECT_OK(cuEventRecord(event, producer));
  EXPECT_OK(cuStreamSynchronize(consumer));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(0, memory[1]);
  EXPECT_OK(cuEventSynchronize(event));
  EXPECT_EQ(1, memory[1]);
}

TEST_F(SimStream, a_destroyed_event_still_holds_back_those_who_wait_for_it) {
  const CUstream producer = make_stream();
  const CUstream consumer = make_stream();
  unsigned char* const memory = make_pinned(1, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, producer));
  const CUevent event = record_on(producer);
  EXPECT_OK(cuStreamWaitEvent(consumer, event, 0));
  EXPECT_OK(cuEventDestroy(event));
  EXPECT_OK(cuStreamSynchronize(consumer));
  EXPECT_EQ(1, memory[0]);
}

TEST_F(SimStream, an_event_that_was_never_recorded_is_complete_and_holds_nothing_back) {
  const CUstream stream = make_stream();
  const CUevent event = make_event();
  EXPECT_OK(cuEventQuery(event));
  EXPECT_OK(cuStreamWaitEvent(stream, event, 0));
  EXPECT_OK(cuStreamQuery(stream));
}

TEST_F(SimStream, each_query_makes_one_step_so_that_polling_ends) {
  const CUstream stream = make_stream();
  unsigned char* const memory = make_pinned(2, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, stream));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, stream));
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(0, memory[1]);
  const CUevent event = record_on(stream);
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuEventQuery(event));
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuEventQuery(event));
  EXPECT_OK(cuEventQuery(event));
  EXPECT_OK(cuStreamQuery(stream));
}

TEST_F(SimStream, querying_a_waiting_stream_steps_the_stream_that_it_waits_for) {
  const CUstream producer = make_stream();
  const CUstream consumer = make_stream();
  unsigned char* const memory = make_pinned(1, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, producer));
  EXPECT_OK(cuStreamWaitEvent(consumer, record_on(producer), 0));
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuStreamQuery(consumer));
  EXPECT_EQ(1, memory[0]);
  int polls = 1;
  while (cuStreamQuery(consumer) == CUDA_ERROR_NOT_READY) {
    ++polls;
  }
  EXPECT_EQ(3, polls) << "the fill, the record, the wait";
}

TEST_F(SimStream, a_pageable_source_is_read_at_the_call_and_a_pinned_one_when_the_copy_runs) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory();
  unsigned char* const pinned = make_pinned(1, 1);
  unsigned char pageable = 1;
  EXPECT_OK(cuMemcpyAsync(memory, device_address(&pageable), 1, stream));
  EXPECT_OK(cuMemcpyAsync(memory + 1, device_address(pinned), 1, stream));
  pageable = 2;
  pinned[0] = 2;
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(1, byte_at(memory));
  EXPECT_EQ(2, byte_at(memory + 1));
}

TEST_F(SimStream, a_copy_to_pageable_memory_is_done_when_it_returns) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory();
  EXPECT_OK(cuMemsetD8Async(memory, 5, KiB, stream));
  unsigned char seen = 0;
  EXPECT_OK(cuMemcpyAsync(device_address(&seen), memory, 1, stream));
  EXPECT_EQ(5, seen);
}

TEST_F(SimStream, the_legacy_stream_waits_for_blocking_streams_and_not_for_others) {
  const CUstream blocking = make_stream(CU_STREAM_DEFAULT);
  const CUstream other = make_stream(CU_STREAM_NON_BLOCKING);
  unsigned char* const memory = make_pinned(3, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, blocking));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, other));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 2), 1, 1, nullptr));
  EXPECT_OK(cuStreamSynchronize(CU_STREAM_LEGACY));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(0, memory[1]);
  EXPECT_EQ(1, memory[2]);
  EXPECT_OK(cuStreamSynchronize(other));
}

TEST_F(SimStream, a_blocking_stream_waits_for_the_legacy_stream_and_another_does_not) {
  const CUstream blocking = make_stream(CU_STREAM_DEFAULT);
  const CUstream other = make_stream(CU_STREAM_NON_BLOCKING);
  unsigned char* const memory = make_pinned(3, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, nullptr));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, other));
  EXPECT_OK(cuStreamSynchronize(other));
  EXPECT_EQ(0, memory[0]);
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 2), 1, 1, blocking));
  EXPECT_OK(cuStreamSynchronize(blocking));
  EXPECT_EQ(1, memory[0]);
}

TEST_F(SimStream, each_thread_has_its_own_per_thread_stream) {
  const auto mine = id_of(CU_STREAM_PER_THREAD);
  EXPECT_EQ(mine, id_of(CU_STREAM_PER_THREAD));
  EXPECT_NE(mine, id_of(CU_STREAM_LEGACY));
  EXPECT_EQ(id_of(nullptr), id_of(CU_STREAM_LEGACY));
  std::thread([&] {
    EXPECT_OK(cuCtxSetCurrent(contexts[0]));
    EXPECT_NE(mine, id_of(CU_STREAM_PER_THREAD));
  }).join();
}

TEST_F(SimStream, a_destroyed_handle_value_is_reused_with_a_new_id) {
  const CUstream first = make_stream();
  const auto first_id = id_of(first);
  EXPECT_OK(cuStreamDestroy(first));
  const CUstream second = make_stream();
  EXPECT_EQ(first, second);
  EXPECT_GT(id_of(second), first_id);
}

TEST_F(SimStream, a_dead_handle_is_refused_and_written_down) {
  const CUstream stream = make_stream();
  const CUevent event = make_event();
  EXPECT_OK(cuStreamDestroy(stream));
  EXPECT_OK(cuEventDestroy(event));
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuStreamQuery(stream));
  expect_violation("cuStreamQuery: stream");
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(event));
  expect_violation("cuEventDestroy: event");
}

TEST_F(SimStream, work_of_a_destroyed_stream_is_still_work_of_the_context) {
  const CUstream gone = make_stream();
  const CUstream later = make_stream();
  unsigned char* const memory = make_pinned(1, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, gone));
  EXPECT_OK(cuStreamDestroy(gone));
  EXPECT_EQ(0, memory[0]);
  const CUevent all = make_event();
  EXPECT_OK(cuCtxRecordEvent(contexts[0], all));
  EXPECT_OK(cuStreamWaitEvent(later, all, 0));
  EXPECT_OK(cuStreamSynchronize(later));
  EXPECT_EQ(1, memory[0]);
}

TEST_F(SimStream, a_context_event_covers_every_stream_of_its_context_and_no_other) {
  const CUstream first = make_stream();
  const CUstream second = make_stream();
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  const CUstream elsewhere = make_stream();
  EXPECT_OK(cuCtxPopCurrent(nullptr));
  unsigned char* const memory = make_pinned(3, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, first));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 1), 1, 1, second));
  EXPECT_OK(cuMemsetD8Async(device_address(memory + 2), 1, 1, elsewhere));
  const CUevent all = make_event();
  EXPECT_OK(cuCtxRecordEvent(contexts[0], all));
  EXPECT_OK(cuEventSynchronize(all));
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(1, memory[1]);
  EXPECT_EQ(0, memory[2]);
  EXPECT_OK(cuStreamSynchronize(elsewhere));
}

TEST_F(SimStream, an_event_of_another_context_cannot_be_recorded_but_can_be_waited_for) {
  const CUevent here = make_event();
  const CUstream stream = make_stream();
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  const CUstream elsewhere = make_stream();
  EXPECT_OK(cuCtxPopCurrent(nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(here, elsewhere));
  EXPECT_OK(cuEventRecord(here, stream));
  EXPECT_OK(cuStreamWaitEvent(elsewhere, here, 0));
  EXPECT_OK(cuStreamSynchronize(elsewhere));
  EXPECT_OK(cuStreamQuery(stream));
}

TEST_F(SimStream, a_long_chain_across_streams_is_followed_to_its_beginning) {
  const CUstream streams[2] = {make_stream(), make_stream()};
  unsigned char* const memory = make_pinned(1, 0);
  const CUevent event = make_event();
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, streams[0]));
  for (int i = 0; i < 50'000; ++i) {
    ASSERT_OK(cuEventRecord(event, streams[i % 2]));
    ASSERT_OK(cuStreamWaitEvent(streams[1 - i % 2], event, 0));
  }
  EXPECT_OK(cuStreamSynchronize(streams[0]));
  EXPECT_EQ(1, memory[0]);
  EXPECT_OK(cuCtxSynchronize());
}

void set_flag(void* flag) { *static_cast<std::atomic<int>*>(flag) = 1; }

TEST_F(SimStream, a_host_function_runs_in_its_place_and_may_not_call_the_driver) {
  const CUstream stream = make_stream();
  std::atomic<int> ran{0};
  EXPECT_OK(cuLaunchHostFunc(stream, set_flag, &ran));
  EXPECT_EQ(0, ran);
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(1, ran);

  CUresult answer = CUDA_SUCCESS;
  EXPECT_OK(cuLaunchHostFunc(stream, [](void* out) { *static_cast<CUresult*>(out) = cuInit(0); }, &answer));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(CUDA_ERROR_NOT_PERMITTED, answer);
}

TEST_F(SimStream, other_threads_use_the_driver_while_a_host_function_runs) {
  const CUstream stream = make_stream();
  const CUstream other = make_stream();
  struct Gate {
    std::atomic<bool> entered{false};
    std::atomic<bool> open{false};
  } gate;
  EXPECT_OK(cuLaunchHostFunc(
      stream,
      [](void* data) {
        auto& gate = *static_cast<Gate*>(data);
        gate.entered = true;
        while (!gate.open) {
          std::this_thread::yield();
        }
      },
      &gate));
  std::thread waiter([&] { EXPECT_OK(cuStreamSynchronize(stream)); });
  while (!gate.entered) {
    std::this_thread::yield();
  }
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  EXPECT_OK(cuStreamSynchronize(other));
  gate.open = true;
  EXPECT_OK(cuStreamSynchronize(stream));
  waiter.join();
}

TEST_F(SimStream, elapsed_time_needs_two_timed_records_that_were_reached) {
  const CUstream stream = make_stream();
  const CUevent first = make_event(CU_EVENT_DEFAULT);
  const CUevent second = make_event(CU_EVENT_DEFAULT);
  float milliseconds = -1;
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, first, second));
  EXPECT_OK(cuEventRecord(first, stream));
  EXPECT_OK(cuEventRecord(second, stream));
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&milliseconds, first, second));
  EXPECT_OK(cuEventSynchronize(second));
  EXPECT_OK(cuEventElapsedTime(&milliseconds, first, second));
  EXPECT_GE(milliseconds, 0);
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, make_event(), second));
}

TEST_F(SimStream, time_is_not_measured_between_devices) {
  const CUevent here = record_on(make_stream());
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  const CUevent there = make_event(CU_EVENT_DEFAULT);
  EXPECT_OK(cuEventRecord(there, make_stream()));
  EXPECT_OK(cuCtxPopCurrent(nullptr));
  float milliseconds = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, here, there));
  cenote_sim_drain();
}

TEST_F(SimStream, an_event_for_other_processes_is_one_without_timing) {
  CUevent event = nullptr;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuEventCreate(&event, CU_EVENT_INTERPROCESS));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_BLOCKING_SYNC));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuEventCreate(&event, 8));
  EXPECT_OK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
  EXPECT_OK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC));
}

TEST_F(SimStream, an_external_wait_belongs_in_a_capture) {
  const CUevent event = make_event();
  EXPECT_EQ(CUDA_ERROR_ILLEGAL_STATE, cuStreamWaitEvent(make_stream(), event, CU_EVENT_WAIT_EXTERNAL));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuStreamWaitEvent(make_stream(), event, 2));
}

TEST_F(SimStream, threads_on_their_own_streams_do_not_disturb_each_other) {
  constexpr int threads = 4;
  constexpr int rounds = 200;
  unsigned char* const memory = make_pinned(threads, 0);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      EXPECT_OK(cuCtxSetCurrent(contexts[0]));
      const CUstream stream = make_stream();
      for (int round = 1; round <= rounds; ++round) {
        CUdeviceptr block = 0;
        EXPECT_OK(cuMemAllocAsync(&block, KiB, stream));
        EXPECT_OK(cuMemsetD8Async(block, static_cast<unsigned char>(round), KiB, stream));
        EXPECT_OK(cuMemcpyAsync(device_address(memory + t), block, 1, stream));
        EXPECT_OK(cuMemFreeAsync(block, stream));
        EXPECT_OK(cuStreamSynchronize(stream));
        EXPECT_EQ(round % 256, memory[t]);
      }
      EXPECT_OK(cuStreamDestroy(stream));
    });
  }
  for (auto& thread : running) {
    thread.join();
  }
}

}  // namespace
}  // namespace cenote::sim_test
