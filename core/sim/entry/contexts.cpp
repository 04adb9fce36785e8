// The primary context of each device, and each thread's stack of current ones.
#include "sim/device/context.hpp"
#include "sim/device/device.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/machine/context_end.hpp"
#include "sim/pool/pool.hpp"
#include "sim/stream/capture.hpp"

namespace cenote::sim {
namespace {

CUresult release_primary(CUdevice ordinal) {
  primary_context& context = device(ordinal).context;
  require(context.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
  if (context.retained == 1) {
    end_context(context);
  }
  --context.retained;
  return CUDA_SUCCESS;
}

void push(primary_context* context) {
  thread_state& thread = this_thread();
  require(thread.depth < thread_state::max_depth, CUDA_ERROR_OUT_OF_MEMORY);
  thread.stack[thread.depth++] = context;
}

void synchronise(primary_context& context) {
  captures().forbid(context);
  advance(context.all_work());
  note_synchronisation();
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice ordinal) {
  return call(entry_id::cuDevicePrimaryCtxRetain, [&] {
    require(context != nullptr);
    primary_context& primary = device(ordinal).context;
    ++primary.retained;
    *context = primary.handle();
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  return call(entry_id::cuDevicePrimaryCtxRelease, [&] { return release_primary(ordinal); });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal) {
  return call(entry_id::cuDevicePrimaryCtxRelease_v2, [&] { return release_primary(ordinal); });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned int* flags, int* active) {
  return call(entry_id::cuDevicePrimaryCtxGetState, [&] {
    require(flags != nullptr && active != nullptr);
    *flags = 0;
    *active = device(ordinal).context.retained > 0;
  });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  return call(entry_id::cuCtxGetCurrent, [&] {
    require(context != nullptr);
    primary_context* const current = this_thread().current();
    *context = current == nullptr ? nullptr : current->handle();
  });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return call(entry_id::cuCtxSetCurrent, [&] {
    thread_state& thread = this_thread();
    primary_context* const context = handle == nullptr ? nullptr : &context_of(handle);
    if (thread.depth > 0) {
      --thread.depth;
    }
    if (context != nullptr) {
      push(context);
    }
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return call(entry_id::cuCtxPushCurrent_v2, [&] { push(&context_of(handle)); });
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return call(entry_id::cuCtxPopCurrent_v2, [&] {
    thread_state& thread = this_thread();
    require(thread.depth > 0, CUDA_ERROR_INVALID_CONTEXT);
    --thread.depth;
    if (context != nullptr) {
      *context = thread.stack[thread.depth]->handle();
    }
  });
}

CUresult cuCtxGetDevice(CUdevice* ordinal) {
  return call(entry_id::cuCtxGetDevice, [&] {
    require(ordinal != nullptr);
    *ordinal = current_context().device.ordinal;
  });
}

CUresult cuCtxGetDevice_v2(CUdevice* ordinal, CUcontext handle) {
  return call(entry_id::cuCtxGetDevice_v2, [&] {
    require(ordinal != nullptr);
    *ordinal = (handle == nullptr ? current_context() : context_of(handle)).device.ordinal;
  });
}

CUresult cuCtxSynchronize() {
  return call_with_destructors(entry_id::cuCtxSynchronize, [] { synchronise(current_context()); });
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  return call_with_destructors(entry_id::cuCtxSynchronize_v2,
                               [&] { synchronise(handle == nullptr ? current_context() : context_of(handle)); });
}

}  // extern "C"
