// When a thing was made and by which call: for the list of what is live (entry/live.cpp), and to tell the things of
// this simulated machine from those of an earlier one (machine/reset.cpp).
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstdint>

namespace cenote::sim {

struct creation {
  const char* by;         ///< base name of the call
  std::uint64_t number;   ///< 1, 2, … in the order in which things were made
  std::uint64_t machine;  ///< machine_state::number at the time

  /// Whether the machine is still the one that it was made on.
  bool is_of_this_machine() const;
};

/// By the call that this thread is in.
creation made_now();

}  // namespace cenote::sim
