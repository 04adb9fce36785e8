// The machine that the driver finds: its settings, and whether cuInit has been called on it.
//
// What the machine consists of lies with its nouns: devices() in device/device.hpp, live_streams() in
// stream/stream.hpp, and so on. Each of them is made at first use and never destroyed, so that the driver answers while
// the process exits.
//
// Threads: guarded by driver_mutex(), as all that the simulated driver knows.
#pragma once

#include <cstdint>
#include <string>

#include "sim/ground/settings.hpp"

namespace cenote::sim {

struct machine_state {
  bool initialised = false;
  machine_settings settings;
  std::string wrong_settings;  ///< what cuInit refused CENOTE_SIM for; empty if it did not
  std::uint64_t number = 1;    ///< 1, 2, …: one more for each reset

  /// The CUDA version that the driver implements, known before cuInit as well.
  int version() const;
};

machine_state& this_machine();

}  // namespace cenote::sim
