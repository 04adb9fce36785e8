#include "sim/stream/event.hpp"

#include <utility>

#include "sim/device/work.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/violations.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {

void record_event(simulated_event& event, simulated_stream& stream) {
  require(&event.context == &stream.context, CUDA_ERROR_INVALID_HANDLE);
  require(!event.is_foreign(), CUDA_ERROR_NOT_SUPPORTED);
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
  if (event.page) {
    count_record(*event.page);
  }
}

namespace {

void wait_for_captured(simulated_stream& stream, const event_record& record) {
  stream_capture& capture = *record.capture;
  require(!capture.ended, CUDA_ERROR_CAPTURED_EVENT);
  capture.require_valid();
  if (stream.kind == stream_kind::legacy) {
    captures().refuse(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream cannot join a capture");
  }
  if (stream.capture && stream.capture != record.capture) {
    stream.capture->invalidated = true;
    captures().refuse(capture, CUDA_ERROR_STREAM_CAPTURE_MERGE, "the wait would merge two captures");
  }
  if (!stream.capture) {
    stream.capture = record.capture;
    capture.streams.push_back(stream.weak_from_this());
  }
  capture.order_after(stream, record.clock);
}

}  // namespace

void wait_for_event(simulated_stream& stream, const simulated_event& event) {
  if (event.is_foreign()) {
    require(!stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (const std::uint64_t record = last_record(*event.page)) {
      const auto wait = [page = event.page, record] { page->wait_for(record); };
      stream.submit({.after = {}, .action = wait, .is_host_function = true});
    }
    return;
  }
  if (!event.record) {
    return;
  }
  if (event.record->capture) {
    wait_for_captured(stream, *event.record);
  } else if (stream.capture) {
    captures().refuse(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                      "the event was recorded outside the capture");
  } else {
    stream.submit({.after = event.record->points, .action = nullptr});
  }
}

queue_points observed(const simulated_event& event) {
  if (event.record && event.record->capture) {
    event.record->capture->invalidated = true;
    violations().add("the event was recorded in a capture");
    fail(CUDA_ERROR_CAPTURED_EVENT);
  }
  captures().require_relaxed();
  return event.record ? event.record->points : queue_points{};
}

std::shared_ptr<simulated_event> event_of(CUevent handle) {
  return find_live(live_events(), handle, CUDA_ERROR_INVALID_HANDLE);
}

handle_table<CUevent, simulated_event>& live_events() {
  static auto* const events = new handle_table<CUevent, simulated_event>("event", 0x52);
  return *events;
}

}  // namespace cenote::sim
