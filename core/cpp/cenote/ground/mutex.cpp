#include "cenote/ground/mutex.hpp"

#include <pthread.h>

#include <atomic>

namespace cenote::inline v1 {

/// A list to which is only added, at its front. A fork takes those that are in it as it starts.
struct all_process_mutexes {
  static void insert(process_mutex& made) noexcept {
    made.next_ = first.load(std::memory_order_relaxed);
    while (!first.compare_exchange_weak(made.next_, &made, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }

  /// As std::lock: it waits for one only while it holds none, because a thread that has one may wait for another.
  static void lock() noexcept {
    process_mutex* const from = first.load(std::memory_order_acquire);
    for (process_mutex* waited_for = from; waited_for != nullptr;) {
      waited_for->lock();
      process_mutex* const missing = try_all_but(*waited_for, from);
      if (missing == nullptr) break;
      waited_for->unlock();
      waited_for = missing;
    }
    locked = from;
  }

  /// Locks all others, or none: then returns one that another thread has.
  static process_mutex* try_all_but(const process_mutex& held, process_mutex* from) noexcept {
    for (process_mutex* each = from; each != nullptr; each = each->next_) {
      if (each == &held || each->try_lock()) continue;
      for (process_mutex* taken = from; taken != each; taken = taken->next_) {
        if (taken != &held) taken->unlock();
      }
      return each;
    }
    return nullptr;
  }

  static void unlock() noexcept {
    for (process_mutex* each = locked; each != nullptr; each = each->next_) each->unlock();
  }

  static constinit std::atomic<process_mutex*> first;
  static constinit process_mutex* locked;  // guarded by those that are locked
};

constinit std::atomic<process_mutex*> all_process_mutexes::first{nullptr};
constinit process_mutex* all_process_mutexes::locked = nullptr;

namespace {

[[maybe_unused]] const int hold_over_forks =
    pthread_atfork(all_process_mutexes::lock, all_process_mutexes::unlock, all_process_mutexes::unlock);

}  // namespace

process_mutex::process_mutex() noexcept { all_process_mutexes::insert(*this); }

}  // namespace cenote::inline v1
