// Another machine in the same process: what becomes of everything that was made on the one before.
//
// 1. All work runs, and captures are dropped.
// 2. Memory of every kind is gone: allocations, reservations, physical memory, graphs. Its addresses and handles are
//    not given out again soon, so that a program that still has them harms nobody: to free them is taken and does
//    nothing, to use them is refused and written down.
// 3. Streams, events, pools and contexts stay, with the handles that they had: pools are empty, events are complete.
//    Those of a card that the new machine does not have cannot be used, until there is such a card again.
// 4. The calling thread has no current context.
// 5. The cards have the new names and sizes.
//
// Threads: no other thread uses the driver meanwhile.
#pragma once

#include "sim/ground/settings.hpp"

namespace cenote::sim {

/// Makes the cards that the settings say, of which the process sees what CUDA_VISIBLE_DEVICES lets it. Throws failure.
void build_machine(const machine_settings& settings);

/// Ends the machine and builds another one. Throws failure, and nothing is changed.
void reset_machine(const machine_settings& settings);

}  // namespace cenote::sim
