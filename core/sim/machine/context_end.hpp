// What goes with a context when its last user releases it: its work is done first, then its streams, events and memory
// are gone, and so is what other contexts were allowed to use of it.
#pragma once

#include "sim/device/context.hpp"

namespace cenote::sim {

void end_context(primary_context& context);

}  // namespace cenote::sim
