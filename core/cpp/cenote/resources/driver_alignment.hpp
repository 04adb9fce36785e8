// The alignment that the driver gives, and the refusal of more. For resources that take straight from the driver.
#pragma once

#include <stdexcept>
#include <string>

#include "cenote/memory_resource.hpp"

namespace cenote {

inline void require_driver_alignment(const memory_resource& resource, std::size_t alignment) {
  if (alignment <= default_alignment) return;
  throw std::invalid_argument("'" + resource.kind() + "' memory is aligned to " + std::to_string(default_alignment) +
                              " bytes; put a pool over it for an alignment of " + std::to_string(alignment));
}

}  // namespace cenote
