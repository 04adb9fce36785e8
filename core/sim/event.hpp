// An event: a name for the points that its last record reached.
//
// Recording makes a new Record and leaves the old one to those who already wait for it: a wait binds to the record that
// is current at the call. An event that was never recorded is complete, and waiting for it is nothing.
//
// Threads: guarded by Driver::mutex.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "capture.hpp"
#include "context.hpp"
#include "made.hpp"
#include "work.hpp"

namespace cenote::sim {

struct event_record {
  queue_points points;
  std::optional<std::chrono::steady_clock::time_point> time;  ///< when it was reached
  std::shared_ptr<stream_capture> capture;                           ///< recorded in it, with `clock` before it
  vector_clock clock;
};

struct simulated_event {
  simulated_event(primary_context& context, unsigned int flags) : context(context), flags(flags) {}

  primary_context& context;
  const unsigned int flags;
  const creation made = made_now();
  std::shared_ptr<event_record> record;
};

/// Throws failure(CUDA_ERROR_INVALID_HANDLE), and writes a violation down, for a dead handle.
std::shared_ptr<simulated_event> event_of(CUevent handle);

}  // namespace cenote::sim
