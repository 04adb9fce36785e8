// Captures: begun, ended, asked for.
#include <cstddef>
#include <memory>
#include <utility>

#include "sim/device/thread_state.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/handles.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

/// The status that cuStreamIsCapturing tells; the capture too, for those that ask for more.
CUstreamCaptureStatus status_of(const std::shared_ptr<stream_capture>& capture) {
  if (!capture) {
    return CU_STREAM_CAPTURE_STATUS_NONE;
  }
  return capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

template <class Out, class Value>
void tell(Out* out, Value value) {
  if (out != nullptr) {
    *out = value;
  }
}

/// Dependencies are told as none: a simulated graph counts its nodes and does not keep them.
CUresult capture_info(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                      const CUgraphNode** dependencies, const CUgraphEdgeData** edges, std::size_t* dependency_count) {
  require(status != nullptr);
  const auto capture = stream_of(handle)->capture;
  *status = status_of(capture);
  if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
    tell(id, capture->id);
    tell(graph, capture->graph_handle);
    tell(dependencies, nullptr);
    tell(edges, nullptr);
    tell(dependency_count, std::size_t{0});
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  return call(entry_id::cuStreamBeginCapture_v2, [&] { captures().begin(stream_of(handle), mode); });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  return call_with_destructors(entry_id::cuStreamEndCapture, [&] {
    require(graph != nullptr);
    *graph = nullptr;
    *graph = captures().end(*stream_of(handle));
  });
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return call(entry_id::cuStreamIsCapturing, [&] {
    require(status != nullptr);
    *status = status_of(stream_of(handle, /*naming_invalidates=*/false)->capture);
  });
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id) {
  return call(entry_id::cuStreamGetCaptureInfo,
              [&] { return capture_info(handle, status, id, nullptr, nullptr, nullptr, nullptr); });
}

CUresult cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                   const CUgraphNode** dependencies, std::size_t* dependency_count) {
  return call(entry_id::cuStreamGetCaptureInfo_v2,
              [&] { return capture_info(handle, status, id, graph, dependencies, nullptr, dependency_count); });
}

CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                   const CUgraphNode** dependencies, const CUgraphEdgeData** edges,
                                   std::size_t* dependency_count) {
  return call(entry_id::cuStreamGetCaptureInfo_v3,
              [&] { return capture_info(handle, status, id, graph, dependencies, edges, dependency_count); });
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return call(entry_id::cuThreadExchangeStreamCaptureMode, [&] {
    require(mode != nullptr && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED);
    std::swap(*mode, this_thread().capture_mode);
  });
}

}  // extern "C"
