// A small number for each thread that is alive: 0, 1, 2 … A number whose thread has ended is the next new thread's, so
// that what is kept by number never outgrows the most threads that there were at once.
//
// Threads: any.
// Cost: a lock at a thread's first question and at its end; a thread-local read in between.
#pragma once

#include <cstddef>

namespace cenote {

/// The calling thread's. While the thread ends it may be another's too: no more than a hint who is who.
std::size_t this_thread_slot() noexcept;

}  // namespace cenote
