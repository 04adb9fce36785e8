// Mutexes of a whole process, which a fork takes: a thread may have one and wait for another meanwhile.
#include "cenote/ground/mutex.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <latch>
#include <mutex>
#include <thread>

namespace cenote::test {
namespace {

process_mutex first, second;  // a fork meets them in one order or the other

/// Forks while another thread has one of them and is about to take the other. A deadlock ends the process.
void fork_beside_a_thread_that_takes(process_mutex& one, process_mutex& other) {
  alarm(20);
  std::latch has_one{1};
  std::jthread thread([&] {
    const std::lock_guard lock(one);
    has_one.count_down();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // so that the fork has begun
    const std::lock_guard nested(other);
  });
  has_one.wait();
  const pid_t child = fork();
  if (child == 0) {
    const std::scoped_lock both(one, other);  // both are there, and nobody has them
    _exit(0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  alarm(0);
}

TEST(process_mutexes, are_taken_by_a_fork_beside_threads_that_take_two_of_them) {
  fork_beside_a_thread_that_takes(first, second);
  fork_beside_a_thread_that_takes(second, first);
}

}  // namespace
}  // namespace cenote::test
