// A small number for each thread that is alive: 0, 1, 2 … No two have the same. A number whose thread has ended is the
// next new thread's, so that what is kept by number never outgrows the most threads that there were at once.
//
// Threads: any.
// Cost: a lock at a thread's first question and at its end; a thread-local read in between.
#pragma once

#include <cstddef>

namespace cenote::inline v1 {

constexpr std::size_t no_slot = ~std::size_t{0};

/// The calling thread's; no_slot for one that has given its own back, as it ends, or where there is no host memory.
/// What is made thread_local after the first question goes before the slot does.
std::size_t this_thread_slot() noexcept;

}  // namespace cenote::inline v1
