#include "event.hpp"

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

void record_event(simulated_event& event, simulated_stream& stream) {
  require(&event.context == &stream.context, CUDA_ERROR_INVALID_HANDLE);
  auto record = std::make_shared<event_record>();
  if (stream.capture) {
    stream.capture->require_valid();
    record->capture = stream.capture;
    record->clock = stream.capture->clocks[stream.id];
  } else {
    const auto note_time = [record] { record->time = std::chrono::steady_clock::now(); };
    record->points = {stream.submit({.after = {}, .action = note_time})};
  }
  event.record = std::move(record);
}

void wait_for_captured(simulated_stream& stream, const event_record& record) {
  stream_capture& capture = *record.capture;
  ongoing_captures& captures = driver().captures;
  require(!capture.ended, CUDA_ERROR_CAPTURED_EVENT);
  capture.require_valid();
  if (stream.kind == stream_kind::legacy) {
    captures.refuse(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream cannot join a capture");
  }
  if (stream.capture && stream.capture != record.capture) {
    stream.capture->invalidated = true;
    captures.refuse(capture, CUDA_ERROR_STREAM_CAPTURE_MERGE, "the wait would merge two captures");
  }
  if (!stream.capture) {
    stream.capture = record.capture;
    capture.streams.push_back(stream.weak_from_this());
  }
  capture.order_after(stream, record.clock);
}

void wait_for_event(simulated_stream& stream, const simulated_event& event) {
  if (!event.record) {
    return;
  }
  if (event.record->capture) {
    wait_for_captured(stream, *event.record);
  } else if (stream.capture) {
    driver().captures.refuse(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                             "the event was recorded outside the capture");
  } else {
    stream.submit({.after = event.record->points, .action = nullptr});
  }
}

/// What must be reached for the event to be complete; asking is unsafe beside a capture, and illegal in it.
queue_points observed(const simulated_event& event) {
  if (event.record && event.record->capture) {
    event.record->capture->invalidated = true;
    driver().violations.add("the event was recorded in a capture");
    fail(CUDA_ERROR_CAPTURED_EVENT);
  }
  driver().captures.require_relaxed();
  return event.record ? event.record->points : queue_points{};
}

CUresult elapsed(float* milliseconds, CUevent start, CUevent end) {
  require(milliseconds != nullptr);
  const auto first = event_of(start);
  const auto second = event_of(end);
  const auto timed = [](const simulated_event& event) {
    return event.record && !event.record->capture && (event.flags & CU_EVENT_DISABLE_TIMING) == 0;
  };
  require(timed(*first) && timed(*second) && &first->context == &second->context, CUDA_ERROR_INVALID_HANDLE);
  if (!first->record->time || !second->record->time) {
    return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*second->record->time - *first->record->time).count();
  return CUDA_SUCCESS;
}

}  // namespace

std::shared_ptr<simulated_event> event_of(CUevent handle) {
  return find_live(driver().events, handle, CUDA_ERROR_INVALID_HANDLE);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuEventCreate(CUevent* handle, unsigned int flags) {
  return call(entry_id::cuEventCreate, [&] {
    constexpr unsigned int known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    require(handle != nullptr && (flags & ~known) == 0);
    require((flags & CU_EVENT_INTERPROCESS) == 0 || (flags & CU_EVENT_DISABLE_TIMING) != 0);
    *handle = driver().events.insert(std::make_shared<simulated_event>(current_context(), flags));
  });
}

CUresult cuEventDestroy_v2(CUevent handle) {
  return call(entry_id::cuEventDestroy_v2, [&] {
    event_of(handle);
    driver().events.remove(handle);
  });
}

CUresult cuEventRecord(CUevent handle, CUstream stream) {
  return call(entry_id::cuEventRecord, [&] { record_event(*event_of(handle), *stream_of(stream)); });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned int flags) {
  return call(entry_id::cuStreamWaitEvent, [&] {
    require(flags == CU_EVENT_WAIT_DEFAULT || flags == CU_EVENT_WAIT_EXTERNAL);
    const auto waiting = stream_of(stream);
    const auto event = event_of(handle);
    if (flags == CU_EVENT_WAIT_EXTERNAL) {
      require(waiting->capture != nullptr, CUDA_ERROR_ILLEGAL_STATE);
      waiting->capture->record(*waiting);
    } else {
      wait_for_event(*waiting, *event);
    }
  });
}

CUresult cuCtxRecordEvent(CUcontext handle, CUevent event_handle) {
  return call(entry_id::cuCtxRecordEvent, [&] {
    primary_context& context = handle == nullptr ? current_context() : context_of(handle);
    const auto event = event_of(event_handle);
    require(&event->context == &context, CUDA_ERROR_INVALID_HANDLE);
    driver().captures.forbid(context);
    event->record = std::make_shared<event_record>();
    event->record->points = {context.mark()};
  });
}

CUresult cuEventQuery(CUevent handle) {
  return call(entry_id::cuEventQuery, [&] {
    const queue_points points = observed(*event_of(handle));
    if (all_reached(points)) {
      return CUDA_SUCCESS;
    }
    step(points);
    return CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return call(entry_id::cuEventSynchronize, [&] {
    advance(observed(*event_of(handle)));
    driver().note_synchronisation();
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return call(entry_id::cuEventElapsedTime, [&] { return elapsed(milliseconds, start, end); });
}

CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return call(entry_id::cuEventElapsedTime_v2, [&] { return elapsed(milliseconds, start, end); });
}

}  // extern "C"
