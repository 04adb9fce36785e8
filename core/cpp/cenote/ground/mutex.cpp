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

  static void lock() noexcept {
    process_mutex* const from = first.load(std::memory_order_acquire);
    for (process_mutex* each = from; each != nullptr; each = each->next_) each->lock();
    locked = from;
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
