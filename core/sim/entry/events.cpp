// Events: made, recorded, waited for.
#include <chrono>
#include <memory>

#include "sim/device/context.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/pool/pool.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/event.hpp"
#include "sim/stream/shared_event.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

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
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuEventCreate(CUevent* handle, unsigned int flags) {
  return call(entry_id::cuEventCreate, [&] {
    constexpr unsigned int known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    require(handle != nullptr && (flags & ~known) == 0);
    require((flags & CU_EVENT_INTERPROCESS) == 0 || (flags & CU_EVENT_DISABLE_TIMING) != 0);
    *handle = live_events().insert(std::make_shared<simulated_event>(current_context(), flags));
  });
}

CUresult cuEventDestroy_v2(CUevent handle) {
  return call(entry_id::cuEventDestroy_v2, [&] {
    event_of(handle);
    live_events().remove(handle);
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
    // Driver 580.159.04 reads what is not mapped, and ends the process.
    require(!event->is_foreign() || &event->context == &waiting->context, CUDA_ERROR_INVALID_CONTEXT);
    if (flags == CU_EVENT_WAIT_EXTERNAL) {
      require(waiting->capture != nullptr, CUDA_ERROR_ILLEGAL_STATE);
      waiting->capture->record(*waiting, [event](simulated_stream& on) { wait_for_event(on, *event); });
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
    require(!event->is_foreign(), CUDA_ERROR_NOT_SUPPORTED);
    captures().forbid(context);
    event->record = std::make_shared<event_record>();
    event->record->points = {context.mark()};
    if (event->page) {
      count_record(*event->page);
    }
  });
}

CUresult cuEventQuery(CUevent handle) {
  return call(entry_id::cuEventQuery, [&] {
    const auto event = event_of(handle);
    const queue_points points = observed(*event);
    if (event->is_foreign()) {
      return event->page->has_reached(last_record(*event->page)) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    }
    if (all_reached(points)) {
      return CUDA_SUCCESS;
    }
    step(points);
    return CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return call_with_destructors(entry_id::cuEventSynchronize, [&] {
    const auto event = event_of(handle);
    advance(observed(*event));
    if (event->is_foreign()) {
      run_outside_the_mutex([&] { event->page->wait_for(last_record(*event->page)); });
    }
    note_synchronisation();
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return call(entry_id::cuEventElapsedTime, [&] { return elapsed(milliseconds, start, end); });
}

CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return call(entry_id::cuEventElapsedTime_v2, [&] { return elapsed(milliseconds, start, end); });
}

}  // extern "C"
