// A leased quota by itself: one thread, several that take turns, and many at once.
#include "cenote/structures/leased_quota.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <functional>
#include <limits>
#include <random>
#include <semaphore>
#include <thread>
#include <vector>

#include "support/without_membarrier.hpp"

namespace cenote {
namespace {

constexpr auto fixed = leased_quota::limit::fixed;
constexpr auto rising = leased_quota::limit::rising;

/// A thread that does what it is told, while the teller waits: one of several, of which one at a time does something.
class told_thread {
 public:
  void operator()(std::function<void()> what) {
    what_ = std::move(what);
    told_.release();
    done_.acquire();
  }
  ~told_thread() {
    what_ = nullptr;
    told_.release();
  }

 private:
  std::function<void()> what_;
  std::binary_semaphore told_{0};
  std::binary_semaphore done_{0};
  std::jthread thread_{[this] {
    for (told_.acquire(); what_; told_.acquire()) {
      what_();
      done_.release();
    }
  }};
};

void on_threads(int count, const std::function<void(int)>& body) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
}

TEST(leased_quota, lets_take_up_to_its_limit_and_no_more) {
  leased_quota quota(fixed, 1000);
  EXPECT_FALSE(quota.try_take(1001));
  EXPECT_TRUE(quota.try_take(999));
  EXPECT_FALSE(quota.try_take(2));
  EXPECT_TRUE(quota.try_take(1));
  EXPECT_FALSE(quota.try_take(1));
  EXPECT_EQ(quota.taken(), 1000);
  quota.give(1000);
  EXPECT_TRUE(quota.try_take(1000));
  quota.check();
}

TEST(leased_quota, has_the_highest_sum_for_its_limit_where_it_may_be_raised) {
  leased_quota quota(rising, 0);
  quota.take(100);
  quota.give(60);
  quota.take(70);
  quota.give(110);
  quota.take(20);
  const auto [taken, limit, taken_in_all] = quota.look();
  EXPECT_EQ(taken, 20);
  EXPECT_EQ(limit, 110);
  EXPECT_EQ(taken_in_all, 190);
  quota.check();
}

TEST(leased_quota, counts_below_zero) {
  leased_quota quota(rising, 0);
  quota.give(100);
  EXPECT_EQ(quota.look().taken, -100);
  quota.take(99);
  EXPECT_EQ(quota.look().limit, 0);
  quota.take(2);
  EXPECT_EQ(quota.look().limit, 1);
}

TEST(leased_quota, counts_the_largest_amounts_for_ever) {
  leased_quota quota(fixed, leased_quota::largest);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(quota.try_take(leased_quota::largest));
    ASSERT_FALSE(quota.try_take(leased_quota::largest));
    ASSERT_FALSE(quota.try_take(1));
    quota.give(leased_quota::largest);
  }
  EXPECT_EQ(quota.taken(), 0);
  quota.check();
}

TEST(leased_quota, stays_in_bounds_where_more_is_given_than_was_taken) {
  leased_quota quota(fixed, 1000);
  const auto give_too_much = [&] {
    for (int i = 0; i < 100; ++i) quota.give(leased_quota::largest);
    quota.give(std::numeric_limits<std::int64_t>::max());
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 70; ++i) threads.emplace_back(give_too_much);
  threads.clear();
  give_too_much();
  EXPECT_LT(quota.taken(), 0);
  EXPECT_GE(quota.taken(), -leased_quota::largest);
  EXPECT_TRUE(quota.try_take(1000));
  quota.check();
}

TEST(leased_quota, refuses_nothing_for_what_other_threads_could_still_take) {
  leased_quota quota(fixed, 1000);
  std::vector<told_thread> others(5);
  for (told_thread& other : others) {
    other([&] {
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(quota.try_take(1)) << "each has a lease now, and is still there";
      quota.give(100);
    });
  }
  EXPECT_TRUE(quota.try_take(1000));
  EXPECT_FALSE(quota.try_take(1));
  others[2]([&] { EXPECT_FALSE(quota.try_take(1)); });
  others[3]([&] { quota.give(1000); });
  others[4]([&] { EXPECT_TRUE(quota.try_take(1000)); });
  quota.check();
}

TEST(leased_quota, outlives_its_threads_and_loses_nothing_of_theirs) {
  leased_quota quota(fixed, 300);
  for (int i = 0; i < 3; ++i) std::thread([&] { EXPECT_TRUE(quota.try_take(100)); }).join();
  EXPECT_FALSE(quota.try_take(1));
  for (int i = 0; i < 3; ++i) std::thread([&] { quota.give(100); }).join();
  EXPECT_TRUE(quota.try_take(300));
  quota.check();
}

TEST(leased_quota, serves_more_threads_than_it_has_cells) {
  constexpr int count = 100;
  leased_quota quota(fixed, count), peak(rising, 0);
  std::barrier all_hold(count);
  on_threads(count, [&](int) {
    EXPECT_TRUE(quota.try_take(1));
    peak.take(1);
    all_hold.arrive_and_wait();
    EXPECT_FALSE(quota.try_take(1));
    EXPECT_EQ(peak.look().taken, count);
    EXPECT_EQ(peak.look().limit, count);
    all_hold.arrive_and_wait();
    quota.give(1);
    peak.give(1);
  });
  EXPECT_TRUE(quota.try_take(count));
  EXPECT_EQ(peak.look().taken, 0);
  EXPECT_EQ(peak.look().limit, count);
  quota.check();
  peak.check();
}

TEST(leased_quota, may_be_given_to_while_a_thread_ends) {
  static leased_quota quota(fixed, 1000);
  struct gives_at_the_end {
    std::int64_t amount = 0;
    ~gives_at_the_end() { quota.give(amount); }
  };
  for (int i = 0; i < 50; ++i) {
    on_threads(8, [&](int) {
      thread_local gives_at_the_end late;  // made before the thread's cell, and so gone after it
      EXPECT_TRUE(quota.try_take(50));
      late.amount = 50;
    });
  }
  EXPECT_EQ(quota.taken(), 0);
  quota.check();
}

TEST(leased_quota, agrees_with_one_counter_in_a_random_history_of_threads_that_take_turns) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::int64_t limit = 1 + static_cast<std::int64_t>(random() % 10'000);
    leased_quota quota(fixed, limit), peak(rising, 0);
    std::vector<told_thread> threads(1 + seed % 4);
    std::vector<std::int64_t> held;
    std::int64_t sum = 0, highest = 0, in_all = 0;
    for (int step = 0; step < 2'000; ++step) {
      told_thread& thread = threads[random() % threads.size()];
      if (held.empty() || random() % 5 < 3) {
        const auto amount = static_cast<std::int64_t>(random() % 1'000);
        bool is_taken = false;
        thread([&] {
          is_taken = quota.try_take(amount);
          if (is_taken) peak.take(amount);
        });
        ASSERT_EQ(is_taken, sum + amount <= limit) << amount << " with " << sum << " taken of " << limit;
        if (is_taken) {
          held.push_back(amount);
          sum += amount;
          in_all += amount;
          highest = std::max(highest, sum);
        }
      } else {
        std::swap(held[random() % held.size()], held.back());
        thread([&] {
          quota.give(held.back());
          peak.give(held.back());
        });
        sum -= held.back();
        held.pop_back();
      }
      ASSERT_EQ(quota.taken(), sum);
      const auto seen = peak.look();
      ASSERT_EQ(seen.taken, sum);
      ASSERT_EQ(seen.limit, highest);
      ASSERT_EQ(seen.taken_in_all, in_all);
      quota.check();
      peak.check();
    }
  }
}

/// Many threads take and give at random, each of what all have: what one has taken another may give.
template <class Take, class Give>
void take_and_give_at_random(unsigned seed, int threads, int steps, Take&& take, Give&& give) {
  std::vector<std::atomic<std::int64_t>> shared(static_cast<std::size_t>(4 * threads));
  on_threads(threads, [&](int thread) {
    std::mt19937_64 random(seed * 1000 + static_cast<unsigned>(thread));
    for (int step = 0; step < steps; ++step) {
      auto& place = shared[random() % shared.size()];
      const auto amount = static_cast<std::int64_t>(1 + random() % 100);
      const std::int64_t before = place.exchange(take(amount) ? amount : 0);
      if (before != 0) give(before);
    }
  });
  for (const auto& left : shared) {
    if (left != 0) give(left);
  }
}

void expect_many_threads_stay_within(std::int64_t limit) {
  SCOPED_TRACE(testing::Message() << "limit " << limit);
  leased_quota quota(fixed, limit);
  std::atomic<std::int64_t> witness{0}, refused{0};
  std::atomic<bool> is_passed{false};
  take_and_give_at_random(
      7, 4, 20'000,
      [&](std::int64_t amount) {
        if (!quota.try_take(amount)) return ++refused, false;
        if (witness.fetch_add(amount) + amount > limit) is_passed = true;
        return true;
      },
      [&](std::int64_t amount) {
        witness -= amount;
        quota.give(amount);
      });
  EXPECT_FALSE(is_passed);
  EXPECT_EQ(quota.taken(), 0);
  if (limit == 100'000) {
    EXPECT_EQ(refused, 0) << "there was always more than all wanted";
  }
  quota.check();
  EXPECT_TRUE(quota.try_take(limit)) << "something was lost";
  EXPECT_FALSE(quota.try_take(1)) << "something was doubled";
}

constexpr std::array<std::int64_t, 5> tight_and_ample_limits = {100, 400, 1'000, 2'000, 100'000};

TEST(leased_quota, is_never_passed_by_many_threads_and_is_whole_afterwards) {
  for (const std::int64_t limit : tight_and_ample_limits) expect_many_threads_stay_within(limit);
}

TEST(leased_quota_death_test, is_never_passed_either_where_the_system_has_no_membarrier) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";  // in a process that has not asked for it yet
  const auto run = [] {
    if (!test::forbid_membarrier()) std::_Exit(2);
    for (const std::int64_t limit : tight_and_ample_limits) expect_many_threads_stay_within(limit);
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST(leased_quota_death_test, refuses_nothing_that_is_left_where_membarrier_is_forbidden_later) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto run = [] {
    leased_quota quota(fixed, 1000);
    if (!has_asymmetric_fence() || !test::forbid_membarrier()) std::_Exit(2);
    told_thread other;
    other([&] {
      EXPECT_TRUE(quota.try_take(100));
      quota.give(100);
    });
    EXPECT_TRUE(quota.try_take(1000));
    EXPECT_FALSE(quota.try_take(1));
    quota.check();
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST(leased_quota, of_many_threads_adds_up_while_it_is_raised_and_looked_at) {
  leased_quota quota(rising, 0);
  std::atomic<std::int64_t> in_all{0};
  std::atomic<bool> is_over{false};
  std::jthread looker([&] {
    std::int64_t limit = 0;
    while (!is_over) {
      const auto seen = quota.look();
      EXPECT_LE(seen.taken, seen.limit);
      EXPECT_GE(seen.taken, 0);
      EXPECT_GE(seen.limit, limit);
      limit = seen.limit;
    }
  });
  take_and_give_at_random(
      3, 4, 20'000,
      [&](std::int64_t amount) {
        quota.take(amount);
        in_all += amount;
        return true;
      },
      [&](std::int64_t amount) { quota.give(amount); });
  is_over = true;
  looker.join();
  const auto seen = quota.look();
  EXPECT_EQ(seen.taken, 0);
  EXPECT_EQ(seen.taken_in_all, in_all);
  quota.check();
}

TEST(leased_quota, has_a_limit_of_at_least_what_many_threads_hold_together) {
  constexpr int count = 4;
  leased_quota quota(rising, 0);
  std::barrier all_hold(count);
  on_threads(count, [&](int thread) {
    for (int round = 1; round <= 200; ++round) {
      quota.take(10 * round + thread);
      all_hold.arrive_and_wait();
      const auto seen = quota.look();
      EXPECT_EQ(seen.taken, 10 * round * count + 6);
      EXPECT_EQ(seen.limit, seen.taken) << "each round holds more than the one before";
      all_hold.arrive_and_wait();
      quota.give(10 * round + thread);
      all_hold.arrive_and_wait();
    }
  });
  quota.check();
}

}  // namespace
}  // namespace cenote
