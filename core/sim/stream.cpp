#include "stream.hpp"

#include <utility>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

CUresult create_stream(CUstream* handle, unsigned int flags, int priority) {
  require(handle != nullptr && flags <= CU_STREAM_NON_BLOCKING);
  *handle = driver().streams.insert(std::make_shared<simulated_stream>(current_context(), stream_kind::created, flags, priority));
  return CUDA_SUCCESS;
}

std::shared_ptr<simulated_stream> default_stream(std::shared_ptr<simulated_stream>& made, stream_kind kind) {
  if (!made) {
    made = std::make_shared<simulated_stream>(current_context(), kind, CU_STREAM_DEFAULT, 0);
  }
  return made;
}

/// Waiting for a stream, or asking how far it is, is unsafe beside a capture and illegal on a stream that captures.
void require_observable(const simulated_stream& stream) {
  if (stream.capture) {
    driver().captures.refuse(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
  }
  driver().captures.require_relaxed();
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
      id(++driver().last_stream_id),
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
    capture->record(*this);
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
    driver().captures.require_no_implied_wait(current_context(), naming_invalidates);
    return default_stream(current_context().legacy_stream, stream_kind::legacy);
  }
  return find_live(driver().streams, handle, CUDA_ERROR_INVALID_HANDLE);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuStreamCreate(CUstream* handle, unsigned int flags) {
  return call(entry_id::cuStreamCreate, [&] { return create_stream(handle, flags, 0); });
}

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned int flags, int priority) {
  return call(entry_id::cuStreamCreateWithPriority, [&] { return create_stream(handle, flags, priority); });
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return call(entry_id::cuStreamDestroy_v2, [&] {
    const auto stream = stream_of(handle);
    require(stream->kind == stream_kind::created, CUDA_ERROR_INVALID_HANDLE);
    driver().captures.forget(*stream);
    driver().streams.remove(handle);
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call(entry_id::cuStreamSynchronize, [&] {
    const auto stream = stream_of(handle);
    require_observable(*stream);
    advance(stream->horizon());
    driver().note_synchronisation();
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
      driver().captures.refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
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
