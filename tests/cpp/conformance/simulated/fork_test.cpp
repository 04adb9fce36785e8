// A forked child of a process that has used the driver: every public call gives a plain error or an answer there, at
// whatever moment the parent's other threads were in.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "cenote/cenote.h"
#include "cenote/cenote.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

struct use {
  const char* name;
  std::function<void()> run;
};

/// What `run` does in a child: "returned", "refused", or the text of another error.
std::string outcome_of(const use& used) {
  try {
    used.run();
    return "returned";
  } catch (const driver_unavailable&) {
    return "refused";
  } catch (const std::exception& error) {
    return error.what();
  }
}

class forked_children : public simulated_device {
 protected:
  static std::shared_ptr<memory_resource> made(const char* specification) { return make_resource(specification, 0); }

  /// Runs every use in a forked child, each within the time that hangs take to be told from waiting.
  static void expect_none_hangs_or_fails(const std::vector<use>& uses) {
    void* const shared = mmap(nullptr, sizeof(std::size_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    std::size_t& at = *static_cast<std::size_t*>(shared);
    const pid_t child = fork();
    if (child == 0) {
      for (at = 0; at < uses.size(); ++at) {
        alarm(20);
        const std::string outcome = outcome_of(uses[at]);
        if (outcome == "returned" || outcome == "refused") continue;
        std::fprintf(stderr, "%s\n", outcome.c_str());
        _exit(1);
      }
      _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << uses[at].name << ", number " << at << ", ended the child by signal " << WTERMSIG(status)
                         << " (" << SIGALRM << ": it hung)";
    munmap(shared, sizeof at);
  }
};

TEST_F(forked_children, get_an_answer_or_a_plain_error_from_every_call_while_other_threads_of_the_parent_use_all) {
  const std::string log_name = testing::TempDir() + "cenote_fork_test.csv";
  const auto pool = std::make_shared<pool_memory_resource>(made("cuda"), 1 * MiB, 64 * MiB);
  const auto tracking = std::make_shared<tracking_resource_adaptor>(pool, true);
  const auto statistics = std::make_shared<statistics_resource_adaptor>(pool);
  const auto guard = std::make_shared<guard_resource_adaptor>(pool);
  const auto logging = std::make_shared<logging_resource_adaptor>(pool, log_name);
  const auto limiting = std::make_shared<limiting_resource_adaptor>(pool, 1 * GiB);
  const auto binning = std::make_shared<binning_memory_resource>(pool, 18, 20);
  const int client = register_client("of the fork test");
  std::vector<use> uses{
      {"pool_size", [&] { pool->pool_size(); }},
      {"pool counters", [&] { pool->counters(); }},
      {"map", [&] { pool->map(); }},
      {"allocated_bytes", [&] { tracking->allocated_bytes(); }},
      {"outstanding_allocations", [&] { tracking->outstanding_allocations_str(); }},
      {"leak_report", [&] { tracking->leak_report(); }},
      {"counters", [&] { statistics->counters(); }},
      {"push_counters", [&] { statistics->push_counters(), statistics->pop_counters(); }},
      {"find_overruns", [&] { guard->find_overruns(); }},
      {"flush", [&] { logging->flush(); }},
      {"limit", [&] { limiting->allocated_bytes(); }},
      {"bin_count", [&] { binning->bin_count(); }},
      {"usage", [] { usage(); }},
      {"register_client", [] { register_client("another"); }},
      {"client_allocate", [=] { client_deallocate(client_allocate(client, 0, 1000, {}), {}); }},
      {"C: usage",
       [=] {
         cenote_client_usage used{sizeof used, 0, 0, 0, 0};
         cenote_get_client_usage(client, &used);
       }},
      {"C: state",
       [] {
         cenote_memory_state state{};
         state.struct_size = sizeof state;
         cenote_get_memory_state(0, &state);
       }},
      {"C: allocate", [=] { cenote_deallocate(cenote_allocate(client, 0, 1000, nullptr), nullptr); }},
      {"C: allocate_sync", [=] { cenote_deallocate_sync(cenote_allocate_sync(client, 0, 1000)); }},
      {"C: trim", [] { cenote_trim(0); }},
      {"C: get_device_resource", [] { cenote_get_device_resource(0, nullptr, 0); }},
      {"devices_with_resource", [] { devices_with_resource(); }},
      {"get_per_device_resource", [] { describe(*get_per_device_resource(0)); }},
      {"known_specifications", [] { known_specifications(); }},
      {"make_resource", [&] { made("statistics | pool:initial=1MiB"); }},
      {"flush_log", [] { flush_log(); }},
      {"device_count", [] { device_count(); }},
      {"memory info", [] { device_memory_info(0); }},
      {"buffer", [&] { device_buffer(1000, {}, pool); }},
      {"stream", [] { cuda_stream(0, cuda_stream::kind::non_blocking).view(); }},
  };
  const std::vector<std::shared_ptr<memory_resource>> resources{pool,
                                                                tracking,
                                                                statistics,
                                                                guard,
                                                                logging,
                                                                limiting,
                                                                binning,
                                                                made("thread_safe | pool"),
                                                                made("arena:size=8MiB"),
                                                                made("fixed_size"),
                                                                made("async")};
  for (const auto& each : resources) {
    uses.push_back({"state", [=] { each->state(); }});
    uses.push_back({"check", [=] { each->check(); }});
    uses.push_back({"trim", [=] { each->trim(1 * MiB); }});
    uses.push_back({"describe", [=] { describe(*each); }});
    uses.push_back({"is_stream_ordered", [=] { each->is_stream_ordered(), each->is_host_accessible(); }});
    uses.push_back({"allocate", [=] { each->deallocate({}, each->allocate({}, 1000), 1000); }});
    uses.push_back({"allocate_sync", [=] { each->deallocate_sync(each->allocate_sync(1000, 4096), 1000, 4096); }});
  }

  std::atomic<bool> is_over{false};
  std::vector<std::thread> threads;
  for (std::size_t first : {std::size_t{0}, uses.size() / 3, 2 * uses.size() / 3}) {
    threads.emplace_back([&, first] {
      for (std::size_t at = first; !is_over; at = (at + 1) % uses.size()) outcome_of(uses[at]);
    });
  }
  for (int forks = 0; forks < 100 && !HasFatalFailure(); ++forks) expect_none_hangs_or_fails(uses);
  is_over = true;
  for (std::thread& each : threads) each.join();
  std::remove(logging->file_name().c_str());
}

TEST_F(forked_children, end_what_their_parent_made_in_silence) {
  captured_stderr said;
  std::vector<std::shared_ptr<memory_resource>> resources;
  for (const char* const specification :
       {"pool:initial=1MiB", "tracking | pool:initial=1MiB", "guard", "binning", "arena:size=8MiB", "async"}) {
    resources.push_back(made(specification));
  }
  std::vector<void*> blocks;
  for (const auto& each : resources) blocks.push_back(each->allocate({}, 1000));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    resources.clear();
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(said.text(), "");
  for (std::size_t i = 0; i < blocks.size(); ++i) resources[i]->deallocate({}, blocks[i], 1000);
}

}  // namespace
}  // namespace cenote::test
