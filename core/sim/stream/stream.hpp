// A stream: a work queue with an identity.
//
// 1. The id is unique and never used again; the handle value is (ground/handles.hpp).
// 2. The legacy stream of a context is ordered with every blocking stream of it, both ways: work on it comes after all
//    that they have, and work on them after all that it has. Non-blocking streams are ordered with nothing.
// 3. A stream that captures hands its work to the capture instead.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "sim/device/context.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"
#include "sim/stream/capture.hpp"

namespace cenote::sim {

enum class stream_kind { created, legacy, per_thread };

struct simulated_stream : std::enable_shared_from_this<simulated_stream> {
  simulated_stream(primary_context& context, stream_kind kind, unsigned int flags, int priority);

  bool blocking() const { return queue->blocking(); }

  /// What comes before anything that is issued on this stream now.
  queue_points horizon() const;

  /// A point that comes before it and is not reached; nothing where all are. One of many costs as much as all of one.
  std::optional<queue_point> unreached() const;

  /// Queues the work behind the horizon, or records it where the stream captures.
  /// Returns the point that is reached once it is done; a captured one is reached already.
  queue_point submit(queued_work work);

  primary_context& context;
  const stream_kind kind;
  const std::uint64_t id;
  const int priority;
  const std::shared_ptr<work_queue> queue;
  const creation made = made_now();
  std::shared_ptr<stream_capture> capture;
};

/// The stream that a handle means to this thread: a created one, or a default stream of the current context.
/// Throws failure: CUDA_ERROR_INVALID_HANDLE for a dead handle (a violation), CUDA_ERROR_INVALID_CONTEXT for a default
/// stream without a context, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT as ongoing_captures::require_no_implied_wait says.
std::shared_ptr<simulated_stream> stream_of(CUstream handle, bool naming_invalidates = true);

handle_table<CUstream, simulated_stream>& live_streams();

}  // namespace cenote::sim
