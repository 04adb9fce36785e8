// A lock that one thread, its owner, takes again and again for nothing, and others seldom and at a price.
//
//     owner    is_held = true  · free fence ·   is_closed?  ── no ──▶  in
//     other    is_closed = true · fence of all · is_held?   ── no ──▶  in
//
// Each writes first, and then looks at what the other one wrote: so that not both get in. The owner never waits: where
// another thread is in, or about to be, try_lock() says so, and it goes another way.
//
// The others are one at a time: they have a lock of their own. They close as many of these locks as they need, pass one
// fence for all of them, and wait for each owner to leave.
//
// Where the system offers no asymmetric fence, the owner's writing is an exchange. In a forked child an owner who was
// in is not there any more, and is not waited for.
//
// Threads: as said. Not recursive. With std::unique_lock and std::try_to_lock.
// Cost: two stores and a load for the owner, no locked instruction; a system call for the others
// (asymmetric_fence.hpp). Source: Kawachiya, Koseki, Onodera, "Lock Reservation", OOPSLA 2002; Dekker's handshake.
#pragma once

#include <atomic>

#include "cenote/ground/asymmetric_fence.hpp"

namespace cenote::inline v1 {

class biased_lock {
 public:
  // The owner's side.

  bool try_lock() noexcept {
    if (has_free_fence_) [[likely]] {
      is_held_.store(true, std::memory_order_relaxed);
      pass_free_fence();
    } else {
      is_held_.exchange(true);
    }
    if (!is_closed_.load()) [[likely]]
      return true;
    unlock();
    return false;
  }
  void unlock() noexcept { is_held_.store(false, std::memory_order_release); }

  // The others' side: close() all, pass_fence() once, wait_until_left() each; open() in the end.

  void close() noexcept { is_closed_.exchange(true); }
  static void pass_fence() noexcept;
  void wait_until_left() const noexcept;
  void open() noexcept { is_closed_.store(false, std::memory_order_release); }

 private:
  const bool has_free_fence_ = has_asymmetric_fence();
  std::atomic<bool> is_held_{false};
  std::atomic<bool> is_closed_{false};
};

}  // namespace cenote::inline v1
