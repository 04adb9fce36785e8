// A lock for a few instructions: one byte, no system call while nobody contends.
//
// It spins a little and then lets other threads run, so that a thread that was put to sleep with the lock in its hand
// costs the others no more than a mutex would.
//
// Whoever takes it writes the number of the process there. In a forked child the thread that has the lock may not be
// there: a lock that another process's number has taken is taken over. What it guards is then as that thread left it.
//
// Threads: any. Not recursive. With std::lock_guard.
// Cost: an exchange and a store, 8 ns together; no driver call and no other lock may be taken under it.
#pragma once

#include <atomic>
#include <thread>

#include "cenote/ground/hot.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

class spin_lock {
 public:
  void lock() noexcept {
    const unsigned ours = process_generation() + 1;  // which is not free
    while (locked_by_.exchange(ours, std::memory_order_acquire) == ours) [[unlikely]]
      wait_until_it_looks_free();
  }
  void unlock() noexcept { locked_by_.store(free, std::memory_order_release); }

 private:
  CENOTE_COLD void wait_until_it_looks_free() const noexcept {
    for (int looks = 0; locked_by_.load(std::memory_order_relaxed) != free; ++looks) {
      if (looks >= looks_before_yielding) std::this_thread::yield();
    }
  }

  static constexpr int looks_before_yielding = 64;
  static constexpr unsigned free = 0;
  std::atomic<unsigned> locked_by_{free};
};

}  // namespace cenote::inline v1
