// How much memory the host has left, read from files as Linux writes them.
#include "cenote/ground/host_memory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace cenote::test {
namespace {

constexpr const char* meminfo = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\n";

class host_memory : public ::testing::Test {
 protected:
  host_memory() { std::filesystem::create_directories(root_ / "proc/self"); }
  ~host_memory() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::optional<std::size_t> available() const { return available_host_memory(root_.string()); }

 private:
  const std::filesystem::path root_ =
      std::filesystem::temp_directory_path() / ("cenote-host-memory-" + std::to_string(getpid()));
};

TEST_F(host_memory, is_unknown_where_nothing_is_told) { EXPECT_EQ(available(), std::nullopt); }

TEST_F(host_memory, is_what_the_system_calls_available_where_no_group_limits) {
  write("proc/meminfo", meminfo);
  EXPECT_EQ(available(), 8000U * 1024);
  write("proc/self/cgroup", "0::/user.slice\n");
  write("sys/fs/cgroup/user.slice/memory.max", "max\n");
  write("sys/fs/cgroup/user.slice/memory.current", "1000\n");
  EXPECT_EQ(available(), 8000U * 1024);
}

TEST_F(host_memory, is_what_the_tightest_of_the_groups_leaves) {
  write("proc/meminfo", meminfo);
  write("proc/self/cgroup", "0::/outer/inner\n");
  write("sys/fs/cgroup/outer/inner/memory.max", "900000\n");
  write("sys/fs/cgroup/outer/inner/memory.current", "100000\n");
  EXPECT_EQ(available(), 800000U);
  write("sys/fs/cgroup/outer/memory.max", "600000\n");
  write("sys/fs/cgroup/outer/memory.current", "500000\n");
  EXPECT_EQ(available(), 100000U);
  write("sys/fs/cgroup/outer/memory.stat", "anon 1\nactive_file 20000\ninactive_file 30000\n");
  EXPECT_EQ(available(), 150000U) << "what was used to read files can be had again";
  write("sys/fs/cgroup/outer/memory.current", "700000\n");
  EXPECT_EQ(available(), 0U) << "a limit that was lowered is passed";
}

TEST_F(host_memory, knows_the_group_of_a_container_that_sees_its_own_as_the_outermost) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "5000\n");
  write("sys/fs/cgroup/memory.current", "1000\n");
  EXPECT_EQ(available(), 4000U);
  write("proc/self/cgroup", "0::/docker/of-the-host\n");  // a path that is not there
  EXPECT_EQ(available(), 4000U);
}

TEST_F(host_memory, knows_the_first_version_of_groups) {
  write("proc/meminfo", meminfo);
  write("proc/self/cgroup", "12:cpu,cpuacct:/a\n7:memory:/a/b\n0::/\n");
  write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "10\n");
  EXPECT_EQ(available(), 8000U * 1024);
  write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n");
  write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "2000\n");
  write("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 400\ntotal_active_file 100\n");
  EXPECT_EQ(available(), 1500U);
}

TEST_F(host_memory, passes_over_what_it_cannot_read) {
  write("proc/meminfo", "MemAvailable: much\n");
  write("proc/self/cgroup", "nonsense\n1:\n0::no/slash\n");
  EXPECT_EQ(available(), std::nullopt);
  write("proc/self/cgroup", "0::/../../x\n0::/a/ (deleted)\n0::/\n");
  write("sys/fs/cgroup/memory.max", "");
  write("sys/fs/cgroup/memory.current", "0\n");
  EXPECT_EQ(available(), std::nullopt);
  write("sys/fs/cgroup/memory.max", "0\n");
  EXPECT_EQ(available(), 0U);
}

TEST(host_memory_of_this_machine, is_at_most_all_of_it) {
  const auto all = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  EXPECT_LT(available_host_memory().value_or(0), all);
}

}  // namespace
}  // namespace cenote::test
