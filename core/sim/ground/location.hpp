// A place that memory can be in or wanted in: a card, the host, a NUMA node of the host, or nowhere in particular.
//
// The host of the simulated machine has one NUMA node, number 0.
#pragma once

#include <compare>

#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

inline constexpr int numa_nodes = 1;

struct memory_location {
  CUmemLocationType type;
  int id;

  /// As the older ABIs name it: the ordinal of a card, CU_DEVICE_CPU, or CU_DEVICE_INVALID.
  int ordinal() const {
    if (type == CU_MEM_LOCATION_TYPE_NONE) {
      return CU_DEVICE_INVALID;
    }
    return type == CU_MEM_LOCATION_TYPE_DEVICE ? id : CU_DEVICE_CPU;
  }

  auto operator<=>(const memory_location&) const = default;
};

inline constexpr memory_location nowhere{CU_MEM_LOCATION_TYPE_NONE, CU_DEVICE_INVALID};

}  // namespace cenote::sim
