// A device's primary context, the only kind there is here, and each thread's stack of current ones.
//
// 1. The context object exists as long as its device; it is active while it is retained. The last release destroys
//    everything in it (streams, events, memory), and another retain starts afresh behind the same handle.
// 2. It holds the queues that still have work to do, those of destroyed streams included.
// 3. The legacy default stream and one default stream for each thread are made when first used.
//
// Threads: guarded by Driver::mutex; the stack of current contexts belongs to its thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "cuda_driver.hpp"
#include "work.hpp"

namespace cenote::sim {

struct Device;
struct Stream;

struct Context {
  explicit Context(Device& device);

  CUcontext handle() { return reinterpret_cast<CUcontext>(this); }

  /// What "all work of this context" means now.
  Points all_work() const;

  /// The same, as one point that stays one however many queues there are.
  Point mark();

  Device& device;
  int retained = 0;
  std::set<const Context*> open_peers;  ///< by cuCtxEnablePeerAccess: their memory may be used here
  BusyQueues busy;
  std::shared_ptr<WorkQueue> marks;
  std::shared_ptr<Stream> legacy_stream;
  std::map<std::uint64_t, std::shared_ptr<Stream>> thread_streams;  ///< by ThreadState::number
};

/// What the driver keeps for a thread. Trivial on purpose: it is usable while the process exits.
struct ThreadState {
  static constexpr std::size_t max_depth = 256;

  std::array<Context*, max_depth> stack{};
  std::size_t depth = 0;
  CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::uint64_t number = 0;
  bool in_host_function = false;

  Context* current() const { return depth == 0 ? nullptr : stack[depth - 1]; }
};

ThreadState& this_thread();

/// Of this thread. Throws Failure(CUDA_ERROR_INVALID_CONTEXT) where there is none, and
/// Failure(CUDA_ERROR_CONTEXT_IS_DESTROYED) where it has been released for good.
Context& current_context();

/// The context behind a handle. Throws Failure(CUDA_ERROR_INVALID_CONTEXT).
Context& context_of(CUcontext handle);

/// Waits for all work of the context. Throws Failure where a stream of it is capturing.
void synchronise(Context& context);

}  // namespace cenote::sim
