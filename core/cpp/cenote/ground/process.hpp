// What state the process is in: exiting, or a forked child of one that had used the driver; and which thread this is.
//
// After the process has started to exit, frees are no-ops and no driver call is made: the driver may be gone. In a
// forked child the parent's CUDA state is unusable (the driver forbids it), so calls raise a plain error. A child of a
// process that has not used the driver may use it; the objects that its parent made are of no use to it (mutex.hpp).
#pragma once

#include <atomic>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

/// Called right before the driver is initialised: what is forked from now on is a child of a process that uses it.
void driver_use_begins() noexcept;

/// Starts watching for the exit, if it has not been called before. It is called right after the driver was initialised:
/// handlers run in reverse order of registration, so that this one runs before the driver's own.
void watch_exit() noexcept;

/// What has become of the process, read at every call: bits of the first two, and how many forks lie between this
/// process and the one that loaded the library, in steps of the third.
CENOTE_EXPORT extern std::atomic<unsigned> process_fate;
constexpr unsigned process_exits = 1, process_was_forked = 2, one_fork = 4;

inline bool process_is_exiting() noexcept {
  return (process_fate.load(std::memory_order_acquire) & process_exits) != 0;
}
inline bool process_is_forked_child() noexcept {
  return (process_fate.load(std::memory_order_acquire) & process_was_forked) != 0;
}

/// The process exits, or is such a child: no driver call may be made any more, and memory is left to the operating
/// system.
inline bool driver_is_gone() noexcept {
  return (process_fate.load(std::memory_order_acquire) & (process_exits | process_was_forked)) != 0;
}

/// The number of this process in the line of forks: another one in a child than in its parent, and never 1.
inline unsigned process_generation() noexcept {
  return process_fate.load(std::memory_order_relaxed) & ~(process_exits | process_was_forked);
}

/// For what a forked child can neither use nor wait for. Throws driver_unavailable, which says what to do.
[[noreturn]] CENOTE_EXPORT void refuse_in_forked_child();

/// The calling thread as the operating system numbers it.
long thread_id() noexcept;

}  // namespace cenote::inline v1
