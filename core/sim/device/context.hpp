// A device's primary context, the only kind there is here.
//
// 1. The context object exists as long as its device; it is active while it is retained. The last release destroys
//    everything in it (streams, events, memory), and another retain starts afresh behind the same handle.
// 2. It holds the queues that still have work to do, those of destroyed streams included.
// 3. The legacy default stream and one default stream for each thread are made when first used.
//
// Threads: guarded by driver_mutex(); the stack of current contexts belongs to its thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

struct simulated_device;
struct simulated_stream;

struct primary_context {
  explicit primary_context(simulated_device& device);

  CUcontext handle() { return reinterpret_cast<CUcontext>(this); }

  /// What "all work of this context" means now.
  queue_points all_work() const;

  /// The same, as one point that stays one however many queues there are.
  queue_point mark();

  simulated_device& device;
  int retained = 0;
  std::set<const primary_context*> open_peers;  ///< by cuCtxEnablePeerAccess: their memory may be used here
  busy_queues busy;
  std::shared_ptr<work_queue> marks;
  std::shared_ptr<simulated_stream> legacy_stream;
  std::map<std::uint64_t, std::shared_ptr<simulated_stream>> thread_streams;  ///< by thread_state::number
};

/// Of this thread. Throws failure(CUDA_ERROR_INVALID_CONTEXT) where there is none, and
/// failure(CUDA_ERROR_CONTEXT_IS_DESTROYED) where it has been released for good.
primary_context& current_context();

/// The context behind a handle. Throws failure(CUDA_ERROR_INVALID_CONTEXT).
primary_context& context_of(CUcontext handle);

}  // namespace cenote::sim
