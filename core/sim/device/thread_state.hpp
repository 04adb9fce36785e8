// What the driver keeps for a thread: its stack of current contexts, its number, how its captures are to behave.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

struct primary_context;

/// Trivial on purpose: it is usable while the process exits.
struct thread_state {
  static constexpr std::size_t max_depth = 256;

  std::array<primary_context*, max_depth> stack{};
  std::size_t depth = 0;
  CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::uint64_t number = 0;
  bool in_host_function = false;

  primary_context* current() const { return depth == 0 ? nullptr : stack[depth - 1]; }
};

thread_state& this_thread();

}  // namespace cenote::sim
