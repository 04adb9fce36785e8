// A number for each thread that the process has had: no two threads ever have the same one, and 0 is no thread's.
//
// For what must know a thread again for certain, also after that has ended. A thread_slot is smaller, and given again.
//
// Threads: any. Cost: a thread-local read; an atomic increment at a thread's first question.
#pragma once

#include <cstdint>

namespace cenote::inline v1 {

/// The calling thread's.
std::uint64_t this_thread_number() noexcept;

}  // namespace cenote::inline v1
