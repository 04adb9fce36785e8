#include "context.hpp"

#include <atomic>
#include <utility>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

/// What goes with a context when its last user releases it.
void destroy_contents(primary_context& context) {
  advance(context.all_work());
  Driver& sim = driver();
  sim.captures.forget(context);
  sim.streams.for_each([&](CUstream handle, const std::shared_ptr<simulated_stream>& stream) {
    if (&stream->context == &context) {
      sim.streams.remove(handle);
    }
  });
  sim.events.for_each([&](CUevent handle, const std::shared_ptr<simulated_event>& event) {
    if (&event->context == &context) {
      sim.events.remove(handle);
    }
  });
  std::vector<std::shared_ptr<memory_block>> blocks;
  for (const auto& [base, block] : sim.blocks.all()) {
    if (block->device == &context.device && block->in_context()) {
      blocks.push_back(block);
    }
  }
  for (const auto& block : blocks) {
    free_block(*block);
  }
  for (const auto& device : sim.devices) {
    device->context.open_peers.erase(&context);
  }
  context.open_peers.clear();
  context.legacy_stream.reset();
  context.thread_streams.clear();
  context.busy = {};
}

CUresult release_primary(CUdevice ordinal) {
  primary_context& context = device(ordinal).context;
  require(context.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
  if (context.retained == 1) {
    destroy_contents(context);
  }
  --context.retained;
  return CUDA_SUCCESS;
}

void push(primary_context* context) {
  thread_state& thread = this_thread();
  require(thread.depth < thread_state::max_depth, CUDA_ERROR_OUT_OF_MEMORY);
  thread.stack[thread.depth++] = context;
}

}  // namespace

primary_context::primary_context(simulated_device& device)
    : device(device), marks(std::make_shared<work_queue>(queue_kind::marks, /*id=*/0, busy)) {}

queue_points primary_context::all_work() const { return ends_of(busy.all); }

queue_point primary_context::mark() {
  if (busy.new_to_marks.empty()) {
    return marks->end();
  }
  queue_points points = ends_of(busy.new_to_marks);
  busy.new_to_marks.clear();
  return marks->push({.after = std::move(points), .action = nullptr});
}

thread_state& this_thread() {
  static std::atomic<std::uint64_t> threads{0};
  thread_local constinit thread_state state;
  if (state.number == 0) {
    state.number = ++threads;
  }
  return state;
}

primary_context& current_context() {
  primary_context* const context = this_thread().current();
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  require(context->retained > 0 && context->device.present, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  return *context;
}

primary_context& context_of(CUcontext handle) {
  for (const auto& device : driver().devices) {
    if (device->context.handle() == handle) {
      return device->context;
    }
  }
  fail(CUDA_ERROR_INVALID_CONTEXT);
}

void synchronise(primary_context& context) {
  driver().captures.forbid(context);
  advance(context.all_work());
  driver().note_synchronisation();
}

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
  return call(entry_id::cuCtxSynchronize, [] { synchronise(current_context()); });
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  return call(entry_id::cuCtxSynchronize_v2,
              [&] { synchronise(handle == nullptr ? current_context() : context_of(handle)); });
}

}  // extern "C"
