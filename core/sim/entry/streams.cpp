// Streams: made, asked, waited for.
#include <memory>

#include "sim/device/context.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/pool/pool.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

CUresult create_stream(CUstream* handle, unsigned int flags, int priority) {
  require(handle != nullptr && flags <= CU_STREAM_NON_BLOCKING);
  *handle = live_streams().insert(
      std::make_shared<simulated_stream>(current_context(), stream_kind::created, flags, priority));
  return CUDA_SUCCESS;
}

/// Waiting for a stream, or asking how far it is, is unsafe beside a capture and illegal on a stream that captures.
void require_observable(const simulated_stream& stream) {
  if (stream.capture) {
    captures().refuse(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
  }
  captures().require_relaxed();
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuStreamCreate(CUstream* handle, unsigned int flags) {
  return call(entry_id::cuStreamCreate, [&] { return create_stream(handle, flags, 0); });
}

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned int flags, int priority) {
  return call(entry_id::cuStreamCreateWithPriority, [&] { return create_stream(handle, flags, priority); });
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return call(entry_id::cuCtxGetStreamPriorityRange, [&] {
    if (least != nullptr) {
      *least = 0;
    }
    if (greatest != nullptr) {
      *greatest = -5;  // what present devices are said to have; not measured
    }
  });
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return call(entry_id::cuStreamDestroy_v2, [&] {
    const auto stream = stream_of(handle);
    require(stream->kind == stream_kind::created, CUDA_ERROR_INVALID_HANDLE);
    captures().forget(*stream);
    live_streams().remove(handle);
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call_with_destructors(entry_id::cuStreamSynchronize, [&] {
    const auto stream = stream_of(handle);
    require_observable(*stream);
    advance(stream->horizon());
    note_synchronisation();
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return call(entry_id::cuStreamQuery, [&] {
    const auto stream = stream_of(handle);
    require_observable(*stream);
    const auto next = stream->unreached();
    if (!next) {
      return CUDA_SUCCESS;
    }
    step({*next});
    return CUDA_ERROR_NOT_READY;
  });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
  return call(entry_id::cuStreamGetCtx, [&] {
    require(context != nullptr);
    *context = stream_of(handle)->context.handle();
  });
}

CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
  return call(entry_id::cuStreamGetId, [&] {
    require(id != nullptr);
    const auto stream = stream_of(handle);
    if (stream->capture) {
      captures().refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
    }
    *id = stream->id;
  });
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* user_data) {
  return call(entry_id::cuLaunchHostFunc, [&] {
    require(function != nullptr);
    stream_of(handle)->submit({.after = {}, .action = [=] { function(user_data); }, .is_host_function = true});
  });
}

}  // extern "C"
