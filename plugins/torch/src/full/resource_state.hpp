// The figures of a device's current resource.
#pragma once

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>

#include "core.hpp"

namespace cenote::torch {

/// Makes the resource if the device has none yet. Costs a few microseconds: the driver is asked what the device has
/// left.
inline cenote_memory_state state_of(c10::DeviceIndex device) {
  cenote_memory_state state{};
  state.struct_size = sizeof(state);
  if (core().get_memory_state(device, &state) != 0) TORCH_CHECK(false, core().last_error());
  return state;
}

inline std::size_t known(std::uint64_t figure, std::size_t otherwise) {
  return figure == CENOTE_UNKNOWN ? otherwise : static_cast<std::size_t>(figure);
}

/// What the resource holds; where it does not know, what is in use. A pool is asked alone, and the driver is not.
inline std::size_t held_of(c10::DeviceIndex device) {
  if (const std::int64_t bytes = core().pool_bytes(device); bytes >= 0) return static_cast<std::size_t>(bytes);
  const cenote_memory_state state = state_of(device);
  return known(state.held, known(state.in_use, 0));
}

}  // namespace cenote::torch
