#include "context.hpp"

#include <atomic>
#include <utility>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

/// What goes with a context when its last user releases it.
void destroy_contents(Context& context) {
  advance(context.all_work());
  Driver& sim = driver();
  sim.captures.forget(context);
  sim.streams.for_each([&](CUstream handle, const std::shared_ptr<Stream>& stream) {
    if (&stream->context == &context) {
      sim.streams.remove(handle);
    }
  });
  sim.events.for_each([&](CUevent handle, const std::shared_ptr<Event>& event) {
    if (&event->context == &context) {
      sim.events.remove(handle);
    }
  });
  std::vector<std::shared_ptr<Block>> blocks;
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
  Context& context = device(ordinal).context;
  require(context.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
  if (context.retained == 1) {
    destroy_contents(context);
  }
  --context.retained;
  return CUDA_SUCCESS;
}

void push(Context* context) {
  ThreadState& thread = this_thread();
  require(thread.depth < ThreadState::max_depth, CUDA_ERROR_OUT_OF_MEMORY);
  thread.stack[thread.depth++] = context;
}

}  // namespace

Context::Context(Device& device)
    : device(device), marks(std::make_shared<WorkQueue>(QueueKind::marks, /*id=*/0, busy)) {}

Points Context::all_work() const { return ends_of(busy.all); }

Point Context::mark() {
  if (busy.new_to_marks.empty()) {
    return marks->end();
  }
  Points points = ends_of(busy.new_to_marks);
  busy.new_to_marks.clear();
  return marks->push({.after = std::move(points), .action = nullptr});
}

ThreadState& this_thread() {
  static std::atomic<std::uint64_t> threads{0};
  thread_local constinit ThreadState state;
  if (state.number == 0) {
    state.number = ++threads;
  }
  return state;
}

Context& current_context() {
  Context* const context = this_thread().current();
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  require(context->retained > 0 && context->device.present, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  return *context;
}

Context& context_of(CUcontext handle) {
  for (const auto& device : driver().devices) {
    if (device->context.handle() == handle) {
      return device->context;
    }
  }
  fail(CUDA_ERROR_INVALID_CONTEXT);
}

void synchronise(Context& context) {
  driver().captures.forbid(context);
  advance(context.all_work());
  driver().note_synchronisation();
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice ordinal) {
  return call(Entry::cuDevicePrimaryCtxRetain, [&] {
    require(context != nullptr);
    Context& primary = device(ordinal).context;
    ++primary.retained;
    *context = primary.handle();
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  return call(Entry::cuDevicePrimaryCtxRelease, [&] { return release_primary(ordinal); });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal) {
  return call(Entry::cuDevicePrimaryCtxRelease_v2, [&] { return release_primary(ordinal); });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned int* flags, int* active) {
  return call(Entry::cuDevicePrimaryCtxGetState, [&] {
    require(flags != nullptr && active != nullptr);
    *flags = 0;
    *active = device(ordinal).context.retained > 0;
  });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  return call(Entry::cuCtxGetCurrent, [&] {
    require(context != nullptr);
    Context* const current = this_thread().current();
    *context = current == nullptr ? nullptr : current->handle();
  });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return call(Entry::cuCtxSetCurrent, [&] {
    ThreadState& thread = this_thread();
    Context* const context = handle == nullptr ? nullptr : &context_of(handle);
    if (thread.depth > 0) {
      --thread.depth;
    }
    if (context != nullptr) {
      push(context);
    }
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return call(Entry::cuCtxPushCurrent_v2, [&] { push(&context_of(handle)); });
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return call(Entry::cuCtxPopCurrent_v2, [&] {
    ThreadState& thread = this_thread();
    require(thread.depth > 0, CUDA_ERROR_INVALID_CONTEXT);
    --thread.depth;
    if (context != nullptr) {
      *context = thread.stack[thread.depth]->handle();
    }
  });
}

CUresult cuCtxGetDevice(CUdevice* ordinal) {
  return call(Entry::cuCtxGetDevice, [&] {
    require(ordinal != nullptr);
    *ordinal = current_context().device.ordinal;
  });
}

CUresult cuCtxGetDevice_v2(CUdevice* ordinal, CUcontext handle) {
  return call(Entry::cuCtxGetDevice_v2, [&] {
    require(ordinal != nullptr);
    *ordinal = (handle == nullptr ? current_context() : context_of(handle)).device.ordinal;
  });
}

CUresult cuCtxSynchronize() {
  return call(Entry::cuCtxSynchronize, [] { synchronise(current_context()); });
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  return call(Entry::cuCtxSynchronize_v2,
              [&] { synchronise(handle == nullptr ? current_context() : context_of(handle)); });
}

}  // extern "C"
