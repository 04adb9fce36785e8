#include "stream.hpp"

#include <utility>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

CUresult create_stream(CUstream* handle, unsigned int flags, int priority) {
  require(handle != nullptr && flags <= CU_STREAM_NON_BLOCKING);
  *handle = driver().streams.insert(std::make_shared<Stream>(current_context(), StreamKind::created, flags, priority));
  return CUDA_SUCCESS;
}

std::shared_ptr<Stream> default_stream(std::shared_ptr<Stream>& made, StreamKind kind) {
  if (!made) {
    made = std::make_shared<Stream>(current_context(), kind, CU_STREAM_DEFAULT, 0);
  }
  return made;
}

/// Waiting for a stream, or asking how far it is, is unsafe beside a capture and illegal on a stream that captures.
void require_observable(const Stream& stream) {
  if (stream.capture) {
    driver().captures.refuse(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
  }
  driver().captures.require_relaxed();
}

QueueKind queue_kind(StreamKind kind, unsigned int flags) {
  if (kind == StreamKind::legacy) {
    return QueueKind::legacy;
  }
  return (flags & CU_STREAM_NON_BLOCKING) == 0 ? QueueKind::blocking : QueueKind::non_blocking;
}

}  // namespace

Stream::Stream(Context& context, StreamKind kind, unsigned int flags, int priority)
    : context(context),
      kind(kind),
      id(++driver().last_stream_id),
      priority(priority),
      queue(std::make_shared<WorkQueue>(queue_kind(kind, flags), id, context.busy)) {}

Points Stream::horizon() const {
  if (kind == StreamKind::legacy) {
    Points points = ends_of(context.busy.new_to_legacy);
    points.push_back(queue->end());
    return points;
  }
  Points points{queue->end()};
  if (blocking() && context.legacy_stream && !context.legacy_stream->queue->idle()) {
    points.push_back(context.legacy_stream->queue->end());
  }
  return points;
}

std::optional<Point> Stream::unreached() const {
  if (kind == StreamKind::legacy && !context.busy.new_to_legacy.empty()) {
    return context.busy.new_to_legacy.begin()->second->end();
  }
  if (blocking() && context.legacy_stream && !context.legacy_stream->queue->idle()) {
    return context.legacy_stream->queue->end();
  }
  return queue->idle() ? std::nullopt : std::optional(queue->end());
}

Point Stream::submit(Work work) {
  if (capture) {
    capture->record(*this);
    return {queue, 0};
  }
  for (Point& point : horizon()) {
    if (point.queue != queue) {
      work.after.push_back(std::move(point));
    }
  }
  if (kind == StreamKind::legacy) {
    context.busy.new_to_legacy.clear();
  }
  return queue->push(std::move(work));
}

std::shared_ptr<Stream> stream_of(CUstream handle, bool naming_invalidates) {
  if (handle == CU_STREAM_PER_THREAD) {
    return default_stream(current_context().thread_streams[this_thread().number], StreamKind::per_thread);
  }
  if (handle == nullptr || handle == CU_STREAM_LEGACY) {
    driver().captures.require_no_implied_wait(current_context(), naming_invalidates);
    return default_stream(current_context().legacy_stream, StreamKind::legacy);
  }
  return find_live(driver().streams, handle, CUDA_ERROR_INVALID_HANDLE);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuStreamCreate(CUstream* handle, unsigned int flags) {
  return call(Entry::cuStreamCreate, [&] { return create_stream(handle, flags, 0); });
}

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned int flags, int priority) {
  return call(Entry::cuStreamCreateWithPriority, [&] { return create_stream(handle, flags, priority); });
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return call(Entry::cuStreamDestroy_v2, [&] {
    const auto stream = stream_of(handle);
    require(stream->kind == StreamKind::created, CUDA_ERROR_INVALID_HANDLE);
    driver().captures.forget(*stream);
    driver().streams.remove(handle);
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call(Entry::cuStreamSynchronize, [&] {
    const auto stream = stream_of(handle);
    require_observable(*stream);
    advance(stream->horizon());
    driver().note_synchronisation();
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return call(Entry::cuStreamQuery, [&] {
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
  return call(Entry::cuStreamGetCtx, [&] {
    require(context != nullptr);
    *context = stream_of(handle)->context.handle();
  });
}

CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
  return call(Entry::cuStreamGetId, [&] {
    require(id != nullptr);
    const auto stream = stream_of(handle);
    if (stream->capture) {
      driver().captures.refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
    }
    *id = stream->id;
  });
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* user_data) {
  return call(Entry::cuLaunchHostFunc, [&] {
    require(function != nullptr);
    stream_of(handle)->submit({.after = {}, .action = [=] { function(user_data); }, .is_host_function = true});
  });
}

}  // extern "C"
