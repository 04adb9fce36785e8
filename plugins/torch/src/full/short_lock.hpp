// A lock for a few instructions: no system call while nobody contends, and half the locked instructions of a mutex.
//
// It spins a little and then lets other threads run.
//
// Threads: any. Not recursive. Nothing that may block or take another lock is called under it.
#pragma once

#include <atomic>
#include <thread>

namespace cenote::torch {

class short_lock {
 public:
  [[gnu::always_inline]] void lock() noexcept {
    while (is_taken_.exchange(true, std::memory_order_acquire)) wait_until_it_looks_free();
  }
  void unlock() noexcept { is_taken_.store(false, std::memory_order_release); }

 private:
  [[gnu::noinline]] void wait_until_it_looks_free() const noexcept {
    for (int looks = 0; is_taken_.load(std::memory_order_relaxed); ++looks) {
      if (looks >= looks_before_yielding) std::this_thread::yield();
    }
  }

  static constexpr int looks_before_yielding = 64;
  std::atomic<bool> is_taken_{false};
};

}  // namespace cenote::torch
