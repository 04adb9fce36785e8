// What a program with rights of its own makes of an environment that its caller has chosen. Needs root, to make one: a
// copy of this very program, owned by root and with the set-user-id bit, that another user runs.
#include "cenote/ground/environment.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "cenote/adaptors/logging_resource_adaptor.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/output_file.hpp"

namespace cenote {
namespace {

constexpr const char* variables[] = {"CENOTE_CUDA_DRIVER",    "CENOTE_RESOURCE", "CENOTE_LOG_FILE",   "RMM_LOG_FILE",
                                     "CENOTE_DEBUG_LOG_FILE", "CENOTE_NVTX",     "RMM_DEBUG_LOG_FILE"};

TEST(environment_variables, are_null_where_they_are_not_set_or_empty) {
  unsetenv("CENOTE_TEST_VARIABLE");
  EXPECT_EQ(environment_variable("CENOTE_TEST_VARIABLE"), nullptr);
  setenv("CENOTE_TEST_VARIABLE", "", 1);
  EXPECT_EQ(environment_variable("CENOTE_TEST_VARIABLE"), nullptr);
  setenv("CENOTE_TEST_VARIABLE", "value", 1);
  if (is_secure_execution()) GTEST_SKIP() << "none is followed here";
  EXPECT_STREQ(environment_variable("CENOTE_TEST_VARIABLE"), "value");
}

/// In the copy: no variable is followed, and no link.
void expect_nothing_is_followed() {
  for (const char* const name : variables) {
    EXPECT_NE(std::getenv(name), nullptr) << name;
    EXPECT_EQ(environment_variable(name), nullptr) << name;
  }
  const std::string folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  try {
    device_count();
    EXPECT_FALSE(driver_is_simulated());  // as CENOTE_CUDA_DRIVER says
  } catch (const driver_unavailable&) {   // there is no other driver
  }
  log(log_level::critical, "a line");
  flush_log();
  EXPECT_FALSE(std::filesystem::exists(folder + "/debug"));
  std::filesystem::create_symlink(folder + "/target", folder + "/link");
  EXPECT_EQ(open_for_writing(folder + "/link").error, ELOOP);
  EXPECT_FALSE(std::filesystem::exists(folder + "/target"));
  const opened_file plain = open_for_writing(folder + "/plain");
  EXPECT_GE(plain.descriptor, 0) << plain.why;
  close(plain.descriptor);
  const opened_file out = open_for_writing("/dev/stdout");
  EXPECT_GE(out.descriptor, 0) << out.why;
  close(out.descriptor);
}

TEST(environment_variables, are_not_followed_in_secure_execution) {
  if (is_secure_execution()) return expect_nothing_is_followed();
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to make a set-user-id program";
  std::string pattern = "/tmp/cenote_secure_XXXXXX";
  const std::string folder = mkdtemp(pattern.data());
  const std::string program = folder + "/program";
  std::filesystem::copy_file("/proc/self/exe", program);
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  ASSERT_EQ(chmod(program.c_str(), 04755), 0);
  const pid_t child = fork();
  if (child == 0) {
    for (const char* const name : variables) setenv(name, (folder + "/debug").c_str(), 1);
    setenv("CENOTE_CUDA_DRIVER", "sim", 1);
    if (chdir("/") != 0 || setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    execl(program.c_str(), program.c_str(), "--gtest_brief=1",
          "--gtest_filter=environment_variables.are_not_followed_in_secure_execution", nullptr);
    _exit(3);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  const bool ran_as_root = std::filesystem::exists(folder + "/plain");
  std::filesystem::remove_all(folder);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2) GTEST_SKIP() << "may not become another user";
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(ran_as_root) << "/tmp takes no set-user-id programs";
}

}  // namespace
}  // namespace cenote
