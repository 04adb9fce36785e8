#include "sim/ground/made.hpp"

#include "sim/ground/current_call.hpp"
#include "sim/ground/machine.hpp"

namespace cenote::sim {

creation made_now() {
  static std::uint64_t last_made = 0;
  return {current_call(), ++last_made, this_machine().number};
}

bool creation::is_of_this_machine() const { return machine == this_machine().number; }

}  // namespace cenote::sim
