// A fence of two sides, of which one is passed often and costs nothing, and the other seldom and pays for both.
//
//     often    write x · pass_free_fence() · read y          the later of the two
//     seldom   write y · pass_fence_of_all() · read x        sees what the other one wrote
//
// The seldom side asks the system to make every thread of the process pass a full fence (membarrier). Where the system
// does not offer that, both sides must be exchanges.
//
// Threads: any. Cost: nothing for the one side; a system call of 0.4 µs for the other (AMD EPYC, Linux 6). Registering
// the process, once, takes up to 20 ms if it has several threads already.
// Source: Goldblatt, "Asymmetric Fences" (WG21 P1202); membarrier(2).
#pragma once

#include <atomic>

namespace cenote::inline v1 {

/// Whether the system offers it. Registers the process the first time.
bool has_asymmetric_fence() noexcept;

/// The side that is passed often: only the compiler is told.
inline void pass_free_fence() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// The side that is passed seldom, where the system offered it: a millisecond if it does so no more.
void pass_fence_of_all() noexcept;

}  // namespace cenote::inline v1
