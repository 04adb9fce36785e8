// Gives back what a pool has not used for some time, by a thread of its own that lives as long as the pool.
//
//     time          │ quarter │ quarter │ quarter │ quarter │          the most that was in use in each of them
//     bytes in use     5 GiB     7 GiB     6 GiB     2 GiB   ──▶ trim(7 GiB)
//
// How it works
//   1. Four times within the idle time the thread asks what the most was that was in use since it last asked.
//   2. Once it knows four such quarters, it trims the pool to the most of them, unless that is what the last trim found
//      already, and nothing has come since.
//   3. What a trim could not give back, as work was pending, it asks for again each quarter.
//
// Threads: one of its own, which holds no lock while it waits. It does nothing once the process exits; in a forked
// child there is none. Cost: a trim at most four times within the idle time, none in a steady program.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>

#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1::pool {

class idle_trimmer {
 public:
  /// What the thread asks of the pool. None of them throws.
  struct pool_calls {
    std::function<std::size_t()> most_in_use_since;  // the last call
    std::function<std::size_t()> held;
    std::function<void(std::size_t keep_bytes)> trim;
    std::function<void()> finish_trim;
  };

  /// Throws std::system_error where there can be no thread.
  idle_trimmer(std::chrono::nanoseconds idle, pool_calls calls);
  ~idle_trimmer();

  /// In a forked child it is not: it has no thread there, and cannot be destroyed, as it would wait for that thread.
  bool is_of_this_process() const noexcept;

  idle_trimmer(const idle_trimmer&) = delete;
  idle_trimmer& operator=(const idle_trimmer&) = delete;

 private:
  void run();

  const std::chrono::nanoseconds quarter_;
  const pool_calls calls_;
  const unsigned made_in_;  // process_generation()
  object_mutex mutex_;      // guards what follows
  std::condition_variable_any ends_;
  bool is_ending_ = false;
  std::thread thread_;  // last, as it uses the others
};

}  // namespace cenote::inline v1::pool
