// The lock of an owner: that only one thread is ever in, whoever it is, and that the owner is not kept waiting.
#include "cenote/ground/biased_lock.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "support/simulated.hpp"
#include "support/without_membarrier.hpp"

namespace cenote::test {
namespace {

TEST(biased_lock, keeps_its_owner_out_while_it_is_closed) {
  biased_lock lock;
  EXPECT_TRUE(std::unique_lock(lock, std::try_to_lock).owns_lock());
  lock.close();
  biased_lock::pass_fence();
  lock.wait_until_left();
  EXPECT_FALSE(std::unique_lock(lock, std::try_to_lock).owns_lock());
  lock.open();
  EXPECT_TRUE(std::unique_lock(lock, std::try_to_lock).owns_lock());
}

/// Adds one, and takes its time: of two who do it together, one is lost.
void add_slowly(std::uint64_t& count) {
  const std::uint64_t before = count;
  for (int looks = 0; looks < 20; ++looks) std::atomic_ref(count).load(std::memory_order_relaxed);
  count = before + 1;
}

/// An owner is in and out of two locks all the time; another thread closes both again and again.
void expect_that_never_two_are_in(std::uint64_t entries) {
  std::array<biased_lock, 2> locks;
  std::array<std::uint64_t, 2> counted{};
  std::uint64_t by_owner = 0, by_other = 0;
  std::atomic<bool> is_over{false};
  std::thread owner([&] {
    for (std::size_t i = 0; by_owner < entries; i = 1 - i) {
      const std::unique_lock lock(locks[i], std::try_to_lock);
      if (!lock) continue;
      add_slowly(counted[i]);
      ++by_owner;
    }
    is_over = true;
  });
  while (!is_over) {
    for (biased_lock& lock : locks) lock.close();
    biased_lock::pass_fence();
    for (const biased_lock& lock : locks) lock.wait_until_left();
    for (std::uint64_t& count : counted) add_slowly(count);
    for (biased_lock& lock : locks) lock.open();
    by_other += locks.size();
    for (int looks = 0; looks < 500; ++looks) is_over.load();  // meanwhile the owner gets in
  }
  owner.join();
  EXPECT_EQ(counted[0] + counted[1], by_owner + by_other);
}

TEST(biased_lock, lets_never_two_in) { expect_that_never_two_are_in(2'000'000); }

TEST(biased_lock_death_test, lets_never_two_in_either_where_the_system_has_no_membarrier) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";  // in a process that has not asked for it yet
  const auto run = [] {
    if (!forbid_membarrier() || has_asymmetric_fence()) std::_Exit(2);
    expect_that_never_two_are_in(2'000'000);
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST(biased_lock_death_test, lets_never_two_in_where_membarrier_is_forbidden_later) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto run = [] {
    if (!has_asymmetric_fence() || !forbid_membarrier()) std::_Exit(2);
    expect_that_never_two_are_in(2'000);  // each closing takes a millisecond
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

class biased_locks : public simulated_device {};

TEST_F(biased_locks, whose_owner_was_lost_in_a_fork_are_not_waited_for) {
  device_count();  // the driver is in use
  biased_lock lock;
  const std::unique_lock held_by_another(lock, std::try_to_lock);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    lock.close();
    biased_lock::pass_fence();
    lock.wait_until_left();
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace cenote::test
