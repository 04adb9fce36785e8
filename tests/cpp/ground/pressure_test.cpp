// Pressure handlers of C++: the order, the retries, and what happens inside a handler.
#include "cenote/ground/pressure.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace cenote::test {
namespace {

class pressure : public testing::Test {
 protected:
  void TearDown() override {
    for (const auto& each : pressure_handlers()) remove_pressure_handler(each.id);
  }

  std::vector<relief_step> relieve(const std::function<bool()>& retry = [] { return false; }) {
    return relieve_pressure(1000, 0, retry);
  }
};

TEST_F(pressure, calls_nothing_where_there_is_no_handler) {
  EXPECT_TRUE(relieve([]() -> bool { throw std::logic_error("not asked"); }).empty());
}

TEST_F(pressure, ends_with_the_first_retry_that_succeeds) {
  int calls = 0;
  add_pressure_handler("first", [&](std::size_t, int) { return relief(++calls); }, 1);
  add_pressure_handler("second", [&](std::size_t, int) { return relief(++calls); });
  int tries = 0;
  EXPECT_EQ(relieve([&] { return ++tries == 1; }).size(), 1);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(pressure_handlers()[0].successes, 1);
}

TEST_F(pressure, does_not_retry_after_a_handler_that_freed_nothing) {
  add_pressure_handler("nothing", [](std::size_t, int) { return relief(0); });
  add_pressure_handler("skips", [](std::size_t, int) { return relief::skipped("it may not"); });
  int tries = 0;
  const auto steps = relieve([&] { return ++tries > 0; });
  EXPECT_EQ(tries, 0);
  ASSERT_EQ(steps.size(), 2);
  EXPECT_EQ(steps[1].why_not, "skipped: it may not");
}

TEST_F(pressure, goes_on_after_a_handler_that_throws) {
  add_pressure_handler("throws", [](std::size_t, int) -> relief { throw std::runtime_error("no"); });
  add_pressure_handler("throws a number", [](std::size_t, int) -> relief { throw 7; });
  const auto steps = relieve();
  ASSERT_EQ(steps.size(), 2);
  EXPECT_EQ(steps[0].why_not, "failed: no");
  EXPECT_EQ(steps[1].why_not, "failed");
  EXPECT_EQ(pressure_handlers()[0].failures, 1);
}

TEST_F(pressure, calls_no_handler_from_a_handler) {
  std::vector<relief_step> inner;
  add_pressure_handler("nests", [&](std::size_t, int) {
    inner = relieve();
    return relief(0);
  });
  relieve();
  ASSERT_EQ(inner.size(), 1);
  EXPECT_EQ(inner[0].why_not, "skipped: a pressure handler allocates this");
  EXPECT_EQ(relieve().size(), 1) << "and is called again afterwards";
}

TEST_F(pressure, lets_a_handler_remove_itself_and_others) {
  pressure_handler_id first = 0, second = 0;
  first = add_pressure_handler("first", [&](std::size_t, int) {
    EXPECT_TRUE(remove_pressure_handler(first));
    EXPECT_TRUE(remove_pressure_handler(second));
    return relief(0);
  });
  second = add_pressure_handler("second", [](std::size_t, int) { return relief(0); });
  EXPECT_EQ(relieve().size(), 2) << "they are those that were there at the beginning";
  EXPECT_TRUE(pressure_handlers().empty());
  EXPECT_FALSE(remove_pressure_handler(first));
}

TEST_F(pressure, refuses_a_handler_that_is_no_function) {
  EXPECT_THROW(add_pressure_handler("none", nullptr), std::invalid_argument);
}

TEST_F(pressure, takes_calls_and_changes_from_many_threads) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const auto id = add_pressure_handler("one of many", [](std::size_t, int) { return relief(1); }, i % 3);
        relieve();
        EXPECT_TRUE(remove_pressure_handler(id));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(pressure_handlers().empty());
}

}  // namespace
}  // namespace cenote::test
