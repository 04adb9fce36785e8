// A number that no other process has come by: what is shared is known by it.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <random>

namespace cenote::sim {

inline std::uint64_t new_key() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

}  // namespace cenote::sim
