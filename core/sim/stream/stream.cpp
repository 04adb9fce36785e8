#include "sim/stream/stream.hpp"

#include <utility>

#include "sim/device/context.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/stream/capture.hpp"

namespace cenote::sim {
namespace {

std::uint64_t last_stream_id = 0;

std::shared_ptr<simulated_stream> default_stream(std::shared_ptr<simulated_stream>& made, stream_kind kind) {
  if (!made) {
    made = std::make_shared<simulated_stream>(current_context(), kind, CU_STREAM_DEFAULT, 0);
  }
  return made;
}

queue_kind kind_of_queue(stream_kind kind, unsigned int flags) {
  if (kind == stream_kind::legacy) {
    return queue_kind::legacy;
  }
  return (flags & CU_STREAM_NON_BLOCKING) == 0 ? queue_kind::blocking : queue_kind::non_blocking;
}

}  // namespace

simulated_stream::simulated_stream(primary_context& context, stream_kind kind, unsigned int flags, int priority)
    : context(context),
      kind(kind),
      id(++last_stream_id),
      priority(priority),
      queue(std::make_shared<work_queue>(kind_of_queue(kind, flags), id, context.busy)) {}

queue_points simulated_stream::horizon() const {
  if (kind == stream_kind::legacy) {
    queue_points points = ends_of(context.busy.new_to_legacy);
    points.push_back(queue->end());
    return points;
  }
  queue_points points{queue->end()};
  if (blocking() && context.legacy_stream && !context.legacy_stream->queue->idle()) {
    points.push_back(context.legacy_stream->queue->end());
  }
  return points;
}

std::optional<queue_point> simulated_stream::unreached() const {
  if (kind == stream_kind::legacy && !context.busy.new_to_legacy.empty()) {
    return context.busy.new_to_legacy.begin()->second->end();
  }
  if (blocking() && context.legacy_stream && !context.legacy_stream->queue->idle()) {
    return context.legacy_stream->queue->end();
  }
  return queue->idle() ? std::nullopt : std::optional(queue->end());
}

queue_point simulated_stream::submit(queued_work work) {
  if (capture) {
    capture->record(*this, [work](simulated_stream& launched_on) { launched_on.submit(work); });
    return {queue, 0};
  }
  for (queue_point& point : horizon()) {
    if (point.queue != queue) {
      work.after.push_back(std::move(point));
    }
  }
  if (kind == stream_kind::legacy) {
    context.busy.new_to_legacy.clear();
  }
  return queue->push(std::move(work));
}

std::shared_ptr<simulated_stream> stream_of(CUstream handle, bool naming_invalidates) {
  if (handle == CU_STREAM_PER_THREAD) {
    return default_stream(current_context().thread_streams[this_thread().number], stream_kind::per_thread);
  }
  if (handle == nullptr || handle == CU_STREAM_LEGACY) {
    captures().require_no_implied_wait(current_context(), naming_invalidates);
    return default_stream(current_context().legacy_stream, stream_kind::legacy);
  }
  return find_live(live_streams(), handle, CUDA_ERROR_INVALID_HANDLE);
}

handle_table<CUstream, simulated_stream>& live_streams() {
  static auto* const streams = new handle_table<CUstream, simulated_stream>("stream", 0x51);
  return *streams;
}

}  // namespace cenote::sim
