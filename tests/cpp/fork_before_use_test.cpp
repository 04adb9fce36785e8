// A forked child of a process that has not used the driver: all works there, at whatever moment the parent's other
// threads were in. The tests run in this order: the last one uses the driver.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "cenote/cenote.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "cenote_sim.h"

namespace cenote::test {
namespace {

/// The exit status of a forked child that runs `body`; a signal's number, and 14 where it hung.
int status_of_child(const std::function<bool()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    try {
      _exit(body() ? 0 : 1);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(2);
    }
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(fork_before_use, leaves_a_child_that_can_do_all_while_other_threads_of_the_parent_use_what_needs_no_driver) {
  ASSERT_FALSE(driver_is_loaded());
  set_logging_level(log_level::off);
  std::atomic<bool> is_over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!is_over) {
        register_client("a client");
        usage();
        devices_with_resource();
        known_specifications();
        report_once("a report");
        std::thread([] { register_client("of another thread"); }).join();
      }
    });
  }
  for (int forks = 0; forks < 25; ++forks) {
    const int status = status_of_child([] {
      const client_index client = register_client("of the child");
      client_deallocate(client_allocate(client, 0, 1000, {}), {});
      set_per_device_resource(0, make_resource("statistics | pool:initial=1MiB", 0));
      device_buffer(1000, {});
      report_once("a report of the child");
      std::thread([] { device_buffer(1000, {}); }).join();
      return usage().size() > 1;
    });
    ASSERT_EQ(status, 0);
  }
  is_over = true;
  for (std::thread& each : threads) each.join();
}

TEST(fork_before_use, while_another_thread_initialises_the_driver_leaves_a_child_that_is_told_to_spawn) {
  ASSERT_FALSE(driver_is_loaded());
  std::atomic<bool> is_initialising{false}, may_go_on{false};
  struct stage {
    std::atomic<bool>& reached;
    std::atomic<bool>& may_go_on;
  } stage{is_initialising, may_go_on};
  const auto stop = [](void* at) {
    static_cast<struct stage*>(at)->reached = true;
    static_cast<struct stage*>(at)->reached.notify_all();
    static_cast<struct stage*>(at)->may_go_on.wait(false);
  };
  ASSERT_EQ(cenote_sim_before("cuInit", stop, &stage), 0);
  std::thread loads([] { device_count(); });
  is_initialising.wait(false);
  EXPECT_EQ(status_of_child([] {
              try {
                device_count();
              } catch (const driver_unavailable& error) {
                return std::string(error.what()).find("'spawn'") != std::string::npos;
              }
              return false;
            }),
            0);
  may_go_on = true;
  may_go_on.notify_all();
  loads.join();
  EXPECT_GT(device_count(), 0);
}

}  // namespace
}  // namespace cenote::test
