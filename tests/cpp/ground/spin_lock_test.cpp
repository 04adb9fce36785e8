// The lock for a few instructions: what is special about it.
#include "cenote/ground/spin_lock.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <mutex>

#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class spin_locks : public simulated_device {};

TEST_F(spin_locks, whose_holder_was_lost_in_a_fork_are_taken_over) {
  spin_lock lock;
  const std::lock_guard held_by_another(lock);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    for (int i = 0; i < 2; ++i) const std::lock_guard taken(lock);
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace cenote::test
