// Stream capture: what is legal while a stream captures, and what an illegal call does to the capture.
//
// The answers were measured on an H100, driver 580.159.04, call by call.
#include <functional>
#include <thread>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

constexpr CUstreamCaptureMode all_modes[] = {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                                             CU_STREAM_CAPTURE_MODE_RELAXED};

class SimCapture : public Sim {
 protected:
  void SetUp() override {
    Sim::SetUp();
    capturing = make_stream();
    other = make_stream();
    older = record_on(other);
    EXPECT_OK(cuStreamSynchronize(other));
  }

  void begin(CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    ASSERT_OK(cuStreamBeginCapture(capturing, mode));
  }

  CUstreamCaptureStatus status(CUstream stream) {
    auto status = CU_STREAM_CAPTURE_STATUS_NONE;
    EXPECT_OK(cuStreamIsCapturing(stream, &status));
    return status;
  }

  CUresult end() {
    CUgraph graph = nullptr;
    const CUresult result = cuStreamEndCapture(capturing, &graph);
    EXPECT_EQ(result == CUDA_SUCCESS, graph != nullptr);
    if (graph != nullptr) {
      EXPECT_OK(cuGraphDestroy(graph));
    }
    return result;
  }

  /// The call's answer in a capture of that mode, and what the capture's end says after it.
  void expect_in_capture(CUstreamCaptureMode mode, CUresult answer, CUresult ending,
                         const std::function<CUresult()>& call) {
    begin(mode);
    EXPECT_EQ(answer, call()) << "mode " << mode;
    EXPECT_EQ(ending, end()) << "mode " << mode;
    EXPECT_EQ(ending != CUDA_SUCCESS, !take_violations().empty()) << "mode " << mode;
  }

  void expect_legal(const std::function<CUresult()>& call) {
    for (const auto mode : all_modes) {
      expect_in_capture(mode, CUDA_SUCCESS, CUDA_SUCCESS, call);
    }
  }

  void expect_illegal(CUresult answer, const std::function<CUresult()>& call) {
    for (const auto mode : all_modes) {
      expect_in_capture(mode, answer, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, call);
    }
  }

  void expect_legal_in_relaxed_mode_only(const std::function<CUresult()>& call) {
    for (const auto mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL}) {
      expect_in_capture(mode, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, call);
    }
    expect_in_capture(CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_SUCCESS, CUDA_SUCCESS, call);
  }

  /// On another thread, with the same context current.
  CUresult elsewhere(const std::function<CUresult()>& call) {
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      EXPECT_OK(cuCtxSetCurrent(contexts[0]));
      result = call();
    }).join();
    return result;
  }

  CUresult allocate() {
    CUdeviceptr memory = 0;
    return cuMemAlloc(&memory, KiB);
  }

  CUresult get_id(CUstream stream) {
    unsigned long long id = 0;
    return cuStreamGetId(stream, &id);
  }

  CUstream capturing = nullptr;
  CUstream other = nullptr;
  CUevent older = nullptr;
};

TEST_F(SimCapture, captured_work_is_recorded_and_not_done) {
  unsigned char* const memory = make_pinned(1, 0);
  begin();
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_ACTIVE, status(capturing));
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(other));
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, capturing));
  EXPECT_EQ(0U, cenote_sim_pending());
  EXPECT_OK(end());
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(capturing));
  EXPECT_OK(cuStreamSynchronize(capturing));
  EXPECT_EQ(0, memory[0]);
}

TEST_F(SimCapture, captures_have_ids_of_their_own) {
  auto status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t first = 0;
  cuuint64_t second = 0;
  CUgraph graph = nullptr;
  begin();
  EXPECT_OK(cuStreamGetCaptureInfo(capturing, &status, &first, &graph, nullptr, nullptr, nullptr));
  EXPECT_NE(nullptr, graph);
  EXPECT_OK(end());
  begin();
  EXPECT_OK(cuStreamGetCaptureInfo(capturing, &status, &second, nullptr, nullptr, nullptr, nullptr));
  EXPECT_OK(end());
  EXPECT_NE(first, second);
}

TEST_F(SimCapture, get_id_on_a_capturing_stream_invalidates_the_capture) {
  const CUdeviceptr memory = make_memory();
  begin();
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, get_id(capturing));
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_INVALIDATED, status(capturing));
  expect_violation("cuStreamGetId");
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuMemsetD8Async(memory, 1, 1, capturing));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(capturing));
  EXPECT_OK(get_id(capturing));
}

TEST_F(SimCapture, the_capturing_stream_itself_may_not_be_waited_for_or_asked) {
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return get_id(capturing); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuStreamQuery(capturing); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuStreamSynchronize(capturing); });
}

TEST_F(SimCapture, a_context_may_not_be_synchronised_or_recorded_in_any_mode) {
  const CUevent event = make_event();
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuCtxSynchronize(); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuCtxRecordEvent(contexts[0], event); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return elsewhere([] { return cuCtxSynchronize(); }); });
  begin();
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  EXPECT_OK(cuCtxSynchronize()) << "another context has nothing to do with it";
  EXPECT_OK(cuCtxPopCurrent(nullptr));
  EXPECT_OK(end());
}

TEST_F(SimCapture, potentially_unsafe_calls_are_legal_in_relaxed_mode_only) {
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&pool, 0));
  void* host = nullptr;
  CUdeviceptr memory = 0;
  cuuint64_t value = 0;
  expect_legal_in_relaxed_mode_only([&] { return allocate(); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemFree(0); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemAllocManaged(&memory, KiB, CU_MEM_ATTACH_GLOBAL); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemHostAlloc(&host, KiB, 0); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemFreeHost(nullptr); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemPoolTrimTo(pool, 0); });
  expect_legal_in_relaxed_mode_only(
      [&] { return cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value); });
  expect_legal_in_relaxed_mode_only([&] { return cuMemAllocFromPoolAsync(&memory, KiB, pool, other); });
  expect_legal_in_relaxed_mode_only([&] { return cuStreamQuery(other); });
  expect_legal_in_relaxed_mode_only([&] { return cuStreamSynchronize(other); });
  expect_legal_in_relaxed_mode_only([&] { return cuEventQuery(older); });
  expect_legal_in_relaxed_mode_only([&] { return cuEventSynchronize(older); });
  EXPECT_OK(cuCtxSynchronize());
}

TEST_F(SimCapture, what_touches_neither_the_capture_nor_the_device_as_a_whole_is_legal) {
  const CUdeviceptr memory = make_memory();
  const CUevent event = make_event();
  std::size_t free = 0;
  std::size_t total = 0;
  expect_legal([&] { return get_id(other); });
  expect_legal([&] { return cuMemGetInfo(&free, &total); });
  expect_legal([&] { return cuMemsetD8Async(memory, 1, 1, other); });
  expect_legal([&] { return cuMemsetD8Async(memory, 1, 1, nullptr); });
  expect_legal([&] { return cuMemcpy(memory, memory + 512, 1); });
  expect_legal([&] { return cuEventRecord(event, other); });
  expect_legal([&] { return cuEventRecord(event, capturing); });
  expect_legal([&] { return cuStreamWaitEvent(other, older, 0); });
  expect_legal([&] { return cuStreamDestroy(make_stream()); });
  expect_legal([&] { return cuEventDestroy(make_event()); });
}

TEST_F(SimCapture, virtual_memory_is_mapped_in_every_mode) {
  constexpr std::size_t bytes = 2 * MiB;
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemAccessDesc access{};
  access.location = properties.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  expect_legal([&] {
    CUdeviceptr address = 0;
    CUmemGenericAllocationHandle handle = 0;
    EXPECT_OK(cuMemAddressReserve(&address, bytes, 0, 0, 0));
    EXPECT_OK(cuMemCreate(&handle, bytes, &properties, 0));
    EXPECT_OK(cuMemMap(address, bytes, 0, handle, 0));
    EXPECT_OK(cuMemSetAccess(address, bytes, &access, 1));
    EXPECT_OK(cuMemUnmap(address, bytes));
    EXPECT_OK(cuMemRelease(handle));
    return cuMemAddressFree(address, bytes);
  });
}

TEST_F(SimCapture, a_thread_that_exchanged_its_mode_for_relaxed_may_make_unsafe_calls) {
  auto mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  EXPECT_OK(cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(CU_STREAM_CAPTURE_MODE_GLOBAL, mode);
  begin();
  EXPECT_OK(allocate());
  EXPECT_OK(cuEventQuery(older));
  EXPECT_OK(cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(CU_STREAM_CAPTURE_MODE_RELAXED, mode);
  EXPECT_OK(end());
}

TEST_F(SimCapture, an_unsafe_call_of_another_thread_invalidates_a_global_capture_only) {
  begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, elsewhere([&] { return allocate(); }));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  expect_violation("cuMemAlloc");
  begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_OK(elsewhere([&] { return allocate(); }));
  EXPECT_OK(end());
}

TEST_F(SimCapture, the_legacy_stream_may_not_be_named_while_a_blocking_stream_captures) {
  const CUdeviceptr memory = make_memory();
  capturing = make_stream(CU_STREAM_DEFAULT);
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, [&] { return cuMemsetD8Async(memory, 1, 1, nullptr); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, [&] { return cuMemcpy(memory, memory + 512, 1); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, [&] { return cuStreamSynchronize(CU_STREAM_LEGACY); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, [&] { return get_id(CU_STREAM_LEGACY); });
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, [&] { return cuEventRecord(older, nullptr); });
  auto ignored = CU_STREAM_CAPTURE_STATUS_NONE;
  begin();
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(nullptr, &ignored));
  EXPECT_OK(end()) << "asking alone does no harm";
}

TEST_F(SimCapture, waiting_for_an_event_from_outside_is_refused) {
  expect_illegal(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, [&] { return cuStreamWaitEvent(capturing, older, 0); });
  const CUevent unrecorded = make_event();
  expect_legal([&] { return cuStreamWaitEvent(capturing, unrecorded, 0); });
}

TEST_F(SimCapture, a_captured_event_cannot_be_asked_or_waited_for_by_the_host) {
  const CUevent event = make_event();
  expect_illegal(CUDA_ERROR_CAPTURED_EVENT, [&] {
    EXPECT_OK(cuEventRecord(event, capturing));
    return cuEventQuery(event);
  });
  expect_illegal(CUDA_ERROR_CAPTURED_EVENT, [&] {
    EXPECT_OK(cuEventRecord(event, capturing));
    return cuEventSynchronize(event);
  });
}

TEST_F(SimCapture, a_fork_that_is_joined_again_is_one_graph) {
  const CUdeviceptr memory = make_memory();
  const CUevent forked = make_event();
  const CUevent joined = make_event();
  begin();
  EXPECT_OK(cuEventRecord(forked, capturing));
  EXPECT_OK(cuStreamWaitEvent(other, forked, 0));
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_ACTIVE, status(other));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 1, other));
  EXPECT_OK(cuEventRecord(joined, other));
  EXPECT_OK(cuStreamWaitEvent(capturing, joined, 0));
  EXPECT_OK(end());
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(other));
}

TEST_F(SimCapture, a_fork_with_work_must_be_joined_and_one_without_need_not_be) {
  const CUdeviceptr memory = make_memory();
  const CUevent forked = make_event();
  begin();
  EXPECT_OK(cuEventRecord(forked, capturing));
  EXPECT_OK(cuStreamWaitEvent(other, forked, 0));
  EXPECT_OK(end());
  begin();
  EXPECT_OK(cuEventRecord(forked, capturing));
  EXPECT_OK(cuStreamWaitEvent(other, forked, 0));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 1, other));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, end());
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(other));
}

TEST_F(SimCapture, a_capture_ends_on_the_stream_and_the_thread_where_it_began) {
  const CUevent forked = make_event();
  CUgraph graph = nullptr;
  begin();
  EXPECT_OK(cuEventRecord(forked, capturing));
  EXPECT_OK(cuStreamWaitEvent(other, forked, 0));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(other, &graph));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  take_violations();

  begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, elsewhere([&] { return end(); }));
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, status(capturing));
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  EXPECT_OK(elsewhere([&] { return end(); }));
}

TEST_F(SimCapture, what_cannot_begin_or_end_says_so_and_harms_nothing) {
  EXPECT_EQ(CUDA_ERROR_ILLEGAL_STATE, end());
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL));
  begin();
  EXPECT_EQ(CUDA_ERROR_ILLEGAL_STATE, cuStreamBeginCapture(capturing, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(end());
}

TEST_F(SimCapture, two_captures_cannot_be_merged) {
  const CUevent event = make_event();
  begin();
  EXPECT_OK(cuStreamBeginCapture(other, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cuEventRecord(event, other));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_MERGE, cuStreamWaitEvent(capturing, event, 0));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  CUgraph graph = nullptr;
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(other, &graph));
  take_violations();
}

TEST_F(SimCapture, memory_allocated_in_a_capture_belongs_to_the_graph) {
  CUdeviceptr memory = 0;
  CUgraph graph = nullptr;
  const auto before = live().allocations;
  begin();
  EXPECT_OK(cuMemAllocAsync(&memory, KiB, capturing));
  EXPECT_OK(cuMemsetD8Async(memory, 1, KiB, capturing));
  EXPECT_OK(cuMemFreeAsync(memory, capturing));
  EXPECT_OK(cuStreamEndCapture(capturing, &graph));
  EXPECT_EQ(before + 1, live().allocations);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory));
  expect_violation("cuMemFree");
  EXPECT_OK(cuGraphDestroy(graph));
  EXPECT_EQ(before, live().allocations);
}

TEST_F(SimCapture, destroying_the_capturing_stream_ends_the_capture) {
  begin();
  EXPECT_OK(cuStreamDestroy(capturing));
  EXPECT_OK(allocate());
  EXPECT_EQ(0U, live().graphs);
}

}  // namespace
}  // namespace cenote::sim_test
