// What state the process is in: exiting, or a forked child of one that had used the driver; and which thread this is.
//
// After the process has started to exit, frees are no-ops and no driver call is made: the driver may be gone. In a
// forked child the parent's CUDA state is unusable (the driver forbids it), so calls raise a plain error.
#pragma once

#include <atomic>

namespace cenote {

/// Starts watching for exit and fork. Called once, right after the driver was initialised: handlers run in reverse
/// order of registration, so that this one runs before the driver's own.
void watch_process() noexcept;

/// What has become of the process, read at every call: bits of these two.
extern std::atomic<unsigned> process_fate;
constexpr unsigned process_exits = 1, process_was_forked = 2;

inline bool process_is_exiting() noexcept {
  return (process_fate.load(std::memory_order_acquire) & process_exits) != 0;
}
inline bool process_is_forked_child() noexcept {
  return (process_fate.load(std::memory_order_acquire) & process_was_forked) != 0;
}

/// The process exits, or is such a child: no driver call may be made any more, and memory is left to the operating
/// system.
inline bool driver_is_gone() noexcept { return process_fate.load(std::memory_order_acquire) != 0; }

/// The calling thread as the operating system numbers it.
long thread_id() noexcept;

}  // namespace cenote
