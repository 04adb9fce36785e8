#include "sim/ground/machine.hpp"

#include <stdexcept>

#include "sim/ground/settings.hpp"

namespace cenote::sim {

int machine_state::version() const {
  if (initialised) {
    return settings.driver_version;
  }
  try {
    return settings_from_environment().driver_version;
  } catch (const std::invalid_argument&) {
    return machine_settings{}.driver_version;  // cuInit will say what is wrong
  }
}

machine_state& this_machine() {
  static machine_state* const machine = new machine_state;
  return *machine;
}

}  // namespace cenote::sim
