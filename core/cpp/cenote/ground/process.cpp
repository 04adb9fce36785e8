#include "cenote/ground/process.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "cenote/ground/error.hpp"

namespace cenote::inline v1 {

constinit std::atomic<unsigned> process_fate{0};

namespace {

constinit std::atomic<bool> driver_is_used{false};

void start_life_as_child() noexcept {
  process_fate.fetch_add(one_fork, std::memory_order_release);
  if (driver_is_used) process_fate.fetch_or(process_was_forked, std::memory_order_release);
}

[[maybe_unused]] const int watch_forks = pthread_atfork(nullptr, nullptr, start_life_as_child);

}  // namespace

void driver_use_begins() noexcept { driver_is_used = true; }

void watch_exit() noexcept {
  [[maybe_unused]] static const int registered =
      std::atexit([] { process_fate.fetch_or(process_exits, std::memory_order_release); });
}

void refuse_in_forked_child() {
  throw driver_unavailable(
      process_is_forked_child()
          ? "this process was forked from one that had used the CUDA driver, which cannot be used here: start workers "
            "with the 'spawn' or 'forkserver' method instead of 'fork'."
          : "this object was made by the process that this one was forked from, and cannot be used here: make one in "
            "this process.");
}

long thread_id() noexcept {
  struct known {
    unsigned generation;
    long id;
  };
  thread_local known here{process_generation(), syscall(SYS_gettid)};
  if (here.generation != process_generation()) here = {process_generation(), syscall(SYS_gettid)};
  return here.id;
}

}  // namespace cenote::inline v1
