// An event: a name for the points that its last record reached.
//
// Recording makes a new event_record and leaves the old one to those who already wait for it: a wait binds to the
// record that is current at the call. An event that was never recorded is complete, and waiting for it is nothing.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "sim/device/context.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/shared_event.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {

struct event_record {
  queue_points points;
  std::optional<std::chrono::steady_clock::time_point> time;  ///< when it was reached
  std::shared_ptr<stream_capture> capture;                    ///< recorded in it, with `clock` before it
  vector_clock clock;
};

struct simulated_event {
  simulated_event(primary_context& context, unsigned int flags) : context(context), flags(flags) {}

  primary_context& context;
  const unsigned int flags;
  const creation made = made_now();
  std::shared_ptr<event_record> record;
  std::shared_ptr<event_page> page;  ///< of an event that other processes know, or of another process's
  bool is_foreign() const { return page && !page->is_own(); }
};

/// The event stands for what the stream has been given by now. Throws failure where they are of two contexts.
void record_event(simulated_event& event, simulated_stream& stream);

/// What the stream is given from now on comes after the event's last record. Throws failure where a capture forbids it.
void wait_for_event(simulated_stream& stream, const simulated_event& event);

/// What must be reached for the event to be complete; asking is unsafe beside a capture, and illegal in it.
queue_points observed(const simulated_event& event);

/// Throws failure(CUDA_ERROR_INVALID_HANDLE), and writes a violation down, for a dead handle.
std::shared_ptr<simulated_event> event_of(CUevent handle);

handle_table<CUevent, simulated_event>& live_events();

}  // namespace cenote::sim
