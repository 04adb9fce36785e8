// A forked child of a process that has not used the driver: all works there, at whatever moment the parent's other
// threads were in. No test uses the driver in the process of all: those that need it do so in a child.
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
  for (int forks = 0; forks < 400 && !HasFailure(); ++forks) {
    const int status = status_of_child([] {
      const client_index client = register_client("of the child");
      client_deallocate(client_allocate(client, 0, 1000, {}), {});
      set_per_device_resource(0, make_resource("statistics | pool:initial=1MiB", 0));
      device_buffer(1000, {});
      report_once("a report of the child");
      std::thread([] { device_buffer(1000, {}); }).join();
      return !usage().empty();
    });
    EXPECT_EQ(status, 0);
  }
  is_over = true;
  for (std::thread& each : threads) each.join();
}

/// Forks while another thread is about to make that call of the driver for the first time; true if `body` is in the
/// child, and the other thread can use the driver then.
bool is_true_in_child_while_in(const char* call, const std::function<bool()>& body) {
  struct stage {
    std::atomic<bool> is_reached{false}, may_go_on{false};
  } stage;
  const auto stop = [](void* at) {
    auto& here = *static_cast<struct stage*>(at);
    here.is_reached = true;
    here.is_reached.notify_all();
    here.may_go_on.wait(false);
  };
  if (driver_is_loaded() || cenote_sim_before(call, stop, &stage) != 0) return false;
  std::thread loads([] { device_count(); });
  stage.is_reached.wait(false);
  const int status = status_of_child(body);
  stage.may_go_on = true;
  stage.may_go_on.notify_all();
  loads.join();
  return status == 0 && device_count() > 0;
}

TEST(fork_before_use, while_another_thread_loads_the_driver_leaves_a_child_that_can_do_all) {
  const auto does_all = [] {
    device_buffer(1000, {});
    return device_count() > 0;
  };
  EXPECT_EQ(status_of_child([&] { return is_true_in_child_while_in("cuDriverGetVersion", does_all); }), 0);
}

TEST(fork_before_use, while_another_thread_initialises_the_driver_leaves_a_child_that_is_told_to_spawn) {
  const auto is_told = [] {
    try {
      device_count();
    } catch (const driver_unavailable& error) {
      return std::string(error.what()).find("'spawn'") != std::string::npos;
    }
    return false;
  };
  EXPECT_EQ(status_of_child([&] { return is_true_in_child_while_in("cuInit", is_told); }), 0);
}

}  // namespace
}  // namespace cenote::test
