// Reports of what cannot be thrown are counted, and the first are kept.
#include "cenote/ground/reports.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "cenote/ground/error.hpp"

namespace cenote {
namespace {

class reports : public ::testing::Test {
 protected:
  void SetUp() override { clear_reports(); }
};

TEST_F(reports, are_counted_each_time_though_the_log_has_each_text_once) {
  EXPECT_EQ(0U, report_count());
  EXPECT_TRUE(kept_reports().empty());
  report_once("something was leaked: ", 3);
  report_once("something was leaked: ", 3);
  EXPECT_EQ(2U, report_count());
  EXPECT_EQ(std::vector<std::string>(2, "something was leaked: 3"), kept_reports());
  clear_reports();
  EXPECT_EQ(0U, report_count());
  EXPECT_TRUE(kept_reports().empty());
}

TEST_F(reports, beyond_the_first_are_counted_and_long_ones_are_cut) {
  report_once(std::string(2 * max_kept_report_bytes, 'x'));
  for (std::size_t i = 0; i < max_kept_reports; ++i) report_once("report ", i);
  EXPECT_EQ(max_kept_reports + 1, report_count());
  const auto kept = kept_reports();
  ASSERT_EQ(max_kept_reports, kept.size());
  EXPECT_EQ(std::string(max_kept_report_bytes, 'x'), kept.front());
  EXPECT_EQ("report 62", kept.back());
}

TEST_F(reports, of_many_threads_are_all_counted) {
  constexpr int threads = 4;
  constexpr int each = 100;
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([] {
      for (int i = 0; i < each; ++i) report_once("the same");
    });
  }
  for (auto& thread : running) thread.join();
  EXPECT_EQ(std::uint64_t{threads * each}, report_count());
}

TEST_F(reports, go_on_in_a_forked_child) {
  report_once("of the parent");
  const pid_t child = fork();
  if (child == 0) {
    report_once("of the child");
    _exit(report_count() == 2 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  EXPECT_EQ(1U, report_count());
}

}  // namespace
}  // namespace cenote
