// The log: its level, its queue, and where a line goes. What Python does with the lines, its own tests see.
#include "cenote/ground/log.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "cenote/ground/error.hpp"

namespace cenote {
namespace {

class log_lines : public ::testing::Test {
 protected:
  log_lines() : level_before_(logging_level()) { set_logging_level(log_level::info); }
  ~log_lines() override {
    stop_listening();
    take_log_records();
    set_logging_level(level_before_);
  }

 private:
  log_level level_before_;
};

TEST_F(log_lines, are_wanted_from_the_level_on_and_never_of_the_level_off) {
  for (int at = 0; at <= 7; ++at) {
    set_logging_level(static_cast<log_level>(at));
    for (int of = 0; of <= 7; ++of) EXPECT_EQ(should_log(static_cast<log_level>(of)), of >= at && of < 6) << at << of;
  }
}

TEST_F(log_lines, go_to_stderr_where_nobody_listens) {
  testing::internal::CaptureStderr();
  log(log_level::debug, "not wanted");
  log(log_level::info, "one");
  log(log_level::error, "two");
  log(log_level::off, "no line");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "cenote: info: one\ncenote: two\n");
  EXPECT_TRUE(take_log_records().empty());
}

TEST_F(log_lines, go_to_the_listener_in_order_and_only_once) {
  start_listening();
  testing::internal::CaptureStderr();
  log(log_level::warn, "one");
  log(log_level::critical, "two");
  EXPECT_TRUE(wait_for_log_records());
  const auto taken = take_log_records();
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].text, "one");
  EXPECT_EQ(taken[0].level, log_level::warn);
  EXPECT_EQ(taken[0].thread, gettid());
  EXPECT_EQ(taken[1].text, "two");
  EXPECT_LE(taken[0].time, taken[1].time);
  EXPECT_TRUE(take_log_records().empty());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(log_lines, that_nobody_takes_are_dropped_oldest_first_and_counted) {
  start_listening();
  for (std::size_t i = 0; i < max_queued_records + 7; ++i) log(log_level::info, std::to_string(i));
  const auto taken = take_log_records();
  ASSERT_EQ(taken.size(), max_queued_records + 1);
  EXPECT_EQ(taken[0].text.substr(0, 8), "7 lines ");
  EXPECT_EQ(taken[1].text, "7");
  EXPECT_EQ(taken.back().text, std::to_string(max_queued_records + 6));
  log(log_level::info, "next");
  EXPECT_EQ(take_log_records().size(), 1u);
}

TEST_F(log_lines, wake_a_waiting_listener_and_so_does_the_end_of_listening) {
  start_listening();
  std::size_t heard = 0;
  std::thread listener([&] {
    while (wait_for_log_records()) heard += take_log_records().size();
    heard += take_log_records().size();
  });
  for (int i = 0; i < 100; ++i) log(log_level::info, "a line");
  stop_listening();
  listener.join();
  EXPECT_EQ(heard, 100u);
}

TEST_F(log_lines, of_a_forked_child_go_to_stderr_again) {
  start_listening();
  EXPECT_EXIT(
      {
        log(log_level::info, "of the child");
        _exit(wait_for_log_records() ? 1 : 0);
      },
      testing::ExitedWithCode(0), "cenote: info: of the child");
}

TEST_F(log_lines, of_a_forked_child_are_its_own_and_reach_a_listener_of_its_own) {
  start_listening();
  std::thread listener([] {
    while (wait_for_log_records()) std::this_thread::yield();  // a child must not count on it
  });
  for (std::size_t i = 0; i < max_queued_records + 7; ++i) log(log_level::info, "of the parent");
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    start_listening();
    if (!take_log_records().empty()) _exit(1);
    std::size_t heard = 0;
    std::thread own([&] {
      while (wait_for_log_records()) heard += take_log_records().size();
      heard += take_log_records().size();
    });
    for (int i = 0; i < 100; ++i) log(log_level::info, "of the child");
    stop_listening();
    own.join();
    _exit(heard == 100 ? 0 : 2);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  stop_listening();
  listener.join();
}

TEST_F(log_lines, of_reports_are_errors_and_each_is_said_once) {
  start_listening();
  for (int i = 0; i < 3; ++i) report_once("what cannot be thrown");
  const auto taken = take_log_records();
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].level, log_level::error);
}

}  // namespace
}  // namespace cenote
