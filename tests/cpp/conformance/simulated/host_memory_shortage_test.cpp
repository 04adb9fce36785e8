// The host's memory runs out at every moment of a workload, for one request, for some, or for good: what is asked for
// then fails with an exception, and what cannot throw (frees, destructors, reports) does its work, or loses a block and
// says so. The process goes on, and the bookkeeping is whole.
#include <functional>
#include <utility>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"
#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"
#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/containers/device_scalar.hpp"
#include "cenote/containers/device_uvector.hpp"
#include "cenote/driver/stream_pool.hpp"
#include "cenote/ground/check.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/clients.hpp"
#include "support/failing_host_memory.hpp"
#include "support/simulated.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

constexpr long for_good = std::numeric_limits<long>::max();

/// Where every operation is checked, fewer moments take as long.
constexpr long stride = check_level >= 2 ? 3 : 1;

/// Every report of the process so far: each text comes once.
std::string& all_reports() {
  static std::string text;
  return text;
}

class shortage {
 public:
  shortage(long served_before, long failures) : state_{served_before, failures} {}

  /// Whether `body` did not throw. What it asks of the core is subject to the shortage.
  template <class Body>
  bool attempt(Body&& body) {
    current_shortage = &state_;
    try {
      body();
      current_shortage = nullptr;
      return true;
    } catch (const std::exception&) {
      current_shortage = nullptr;
      return false;
    }
  }

  bool has_begun() const { return state_.has_begun; }

 private:
  host_memory_shortage state_;
};

struct pair_of_streams {
  cuda_stream a{0, cuda_stream::kind::non_blocking};
  cuda_stream b{0, cuda_stream::kind::non_blocking};
};

class host_memory_shortages : public clients {
 protected:
  void SetUp() override {
    clients::SetUp();
    streams_.emplace();
  }
  void TearDown() override {
    streams_.reset();
    clients::TearDown();
  }

  /// What of the device's memory is in use at the end of it, and should not be.
  using workload = std::function<std::size_t(shortage&)>;

  /// At each moment; there are at least so many.
  static void run(long least_moments, const workload& work) {
    shortage none(0, 0);
    work(none);  // what the process asks for once is there
    for (const long failures : {1L, 3L, for_good}) {
      long moment = 0;
      for (;; moment += moment < 30 ? 1 : stride) {
        SCOPED_TRACE(testing::Message() << failures << " requests fail after " << moment);
        finish_all_work();
        const auto before = live_objects();
        std::size_t lost = 0;
        shortage memory(moment, failures);
        {
          captured_stderr reports;
          lost = work(memory);
          all_reports() += reports.text();
        }
        finish_all_work();
        const auto after = live_objects();
        EXPECT_EQ(count_objects(after), count_objects(before));
        EXPECT_EQ(after.device_bytes, before.device_bytes);
        EXPECT_TRUE(lost == 0 || all_reports().find("leaked") != std::string::npos) << lost << " bytes are lost";
        if (!memory.has_begun() || HasFailure()) break;
      }
      EXPECT_GE(moment, least_moments);
      if (HasFailure()) return;
    }
  }

  stream_ref a() const { return streams_->a.view(); }
  stream_ref b() const { return streams_->b.view(); }

 private:
  std::optional<pair_of_streams> streams_;
};

struct held_block {
  stream_ref stream;
  void* pointer = nullptr;
  std::size_t bytes = 0;
  std::size_t alignment = default_alignment;
};

/// Allocates, frees, looks and ends a resource that `make` makes.
std::size_t use_a_resource(shortage& memory, const std::function<resource_ptr()>& make, stream_ref a, stream_ref b) {
  resource_ptr resource;
  if (!memory.attempt([&] { resource = make(); })) return 0;
  std::vector<held_block> held;
  const auto allocate = [&](held_block wanted) {
    memory.attempt([&] { wanted.pointer = resource->try_allocate(wanted.stream, wanted.bytes, wanted.alignment); });
    if (wanted.pointer != nullptr) held.push_back(wanted);
  };
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < 6; ++i) allocate({i % 2 == 0 ? a : b, nullptr, std::size_t{1000} << i});
    allocate({a, nullptr, 3 * MiB});
    allocate({{}, nullptr, 100 * KiB, 4096});
    for (std::size_t i = 0; !held.empty(); ++i) {
      held_block freed = held.back();
      held.pop_back();
      if (i % 3 == 2) freed.stream = a;
      memory.attempt([&] { resource->deallocate(freed.stream, freed.pointer, freed.bytes, freed.alignment); });
    }
    EXPECT_NO_THROW(resource->check());
    allocate({b, nullptr, 3 * MiB});
  }
  memory.attempt([&] { resource->trim(); });
  memory.attempt([&] { resource->state(); });
  memory.attempt([&] { describe(*resource); });
  for (const held_block& left : held) {
    memory.attempt([&] { resource->deallocate_sync(left.pointer, left.bytes, left.alignment); });
  }
  EXPECT_NO_THROW(resource->check());
  const std::size_t lost = in_use_when_trimmed(*resource);
  memory.attempt([&] { resource.reset(); });
  return lost;
}

class host_memory_shortages_of : public host_memory_shortages, public testing::WithParamInterface<stack> {};

TEST_P(host_memory_shortages_of, leave_each_stack_whole) {
  if (const std::string missing = GetParam().missing(0); !missing.empty()) GTEST_SKIP() << missing;
  run(1, [&](shortage& memory) { return use_a_resource(memory, [&] { return GetParam().make(0); }, a(), b()); });
  std::remove(log_file(".dev0").c_str());
}

INSTANTIATE_TEST_SUITE_P(all, host_memory_shortages_of, testing::ValuesIn(every_stack()), stack_name);

TEST_F(host_memory_shortages, leave_a_specified_stack_whole) {
  run(100, [&](shortage& memory) {
    return use_a_resource(
        memory,
        [] { return make_resource("tracking:capture_stacks=true | guard | binning:min=8,max=12 | pool | cuda", 0); },
        a(), b());
  });
}

/// The blocks are there, and only what frees them has no memory.
TEST_F(host_memory_shortages, lose_no_more_than_the_blocks_that_are_freed_meanwhile) {
  run(1, [&](shortage& memory) {
    const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 4 * MiB);
    std::vector<void*> blocks;
    for (int i = 0; i < 60; ++i) blocks.push_back(pool->allocate({}, 16 * KiB));
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const stream_ref stream = i % 3 == 0 ? a() : b();  // new to the pool
      EXPECT_TRUE(memory.attempt([&] { pool->deallocate(stream, blocks[i], 16 * KiB); }));
    }
    pool->check();
    const std::size_t lost = *pool->state().in_use;
    EXPECT_EQ(lost % (16 * KiB), 0u);
    pool->deallocate(a(), pool->allocate(a(), 1 * MiB), 1 * MiB);
    EXPECT_EQ(pool->state().in_use, lost);
    return lost;
  });
}

TEST_F(host_memory_shortages, are_survived_by_frees_that_are_wrong) {
  run(0, [&](shortage& memory) {
    const std::string stacks[] = {"pool:initial=4MiB",
                                  "tracking:capture_stacks=true | pool:initial=4MiB",
                                  "guard | pool:initial=4MiB",
                                  "limiting:limit=1GiB | statistics | pool:initial=4MiB",
                                  "arena:size=4MiB",
                                  "fixed_size",
                                  "system"};
    std::size_t lost = 0;
    for (const std::string& specification : stacks) {
      const auto resource = make_resource(specification, 0);
      void* const block = resource->allocate(a(), 1000);
      int no_block = 0;
      EXPECT_TRUE(memory.attempt([&] {
        resource->deallocate(a(), &no_block, 1000);
        resource->deallocate(b(), block, 600000);
        resource->deallocate(a(), block, 1000);
        resource->deallocate(a(), block, 1000, 4096);
      }));
      resource->check();
    }
    return lost;
  });
}

TEST_F(host_memory_shortages, leave_what_clients_hold_accounted_for) {
  const client_index client = register_client("shortage");
  run(30, [&](shortage& memory) {
    const auto pool = use_pool(16 * MiB);
    std::vector<void*> blocks;
    for (int i = 0; i < 40; ++i) {
      void* block = nullptr;
      memory.attempt([&] { block = client_allocate(client, 0, 4000, a()); });
      if (block != nullptr) blocks.push_back(block);
    }
    memory.attempt([&] { client_record_stream(blocks.at(0), b()); });
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_TRUE(memory.attempt([&] { client_deallocate(blocks[i], i % 5 == 0 ? b() : a()); }));
    }
    EXPECT_TRUE(memory.attempt([&] { client_deallocate(&memory, a()); }));
    EXPECT_EQ(usage()[static_cast<std::size_t>(client)].bytes, 0u);
    EXPECT_TRUE(memory.attempt([&] { reclaimer::of(0).free_pending(); }));
    reclaimer::of(0).free_pending();
    pool->check();
    const std::size_t lost = *pool->state().in_use;
    memory.attempt([] { reset_resources(); });
    reset_resources();
    return lost;
  });
}

TEST_F(host_memory_shortages, leave_scopes_of_counters_as_they_were) {
  const auto counting = std::make_shared<statistics_resource_adaptor>(std::make_shared<cuda_memory_resource>(0));
  run(1, [&](shortage& memory) {
    const bool is_pushed = memory.attempt([&] { counting->push_counters(); });
    counting->deallocate({}, counting->allocate({}, 1000), 1000);
    if (is_pushed) {
      EXPECT_EQ(counting->pop_counters().count.total, 1);
    }
    EXPECT_THROW(counting->pop_counters(), std::out_of_range);
    return std::size_t{0};
  });
}

/// The driver says no as well, and there is no memory for that.
TEST_F(host_memory_shortages, are_survived_by_frees_that_the_driver_refuses) {
  const client_index client = register_client("shortage");
  for (const char* const call : {"cuEventRecord", "cuCtxRecordEvent", "cuStreamIsCapturing", "cuStreamGetCtx"}) {
    SCOPED_TRACE(call);
    run(0, [&](shortage& memory) {
      const auto pool = use_pool(16 * MiB);
      const foreign_stream one, other;
      void* const first = client_allocate(client, 0, 4000, one.view());
      void* const second = client_allocate(client, 0, 5 * MiB, other.view());
      cenote_sim_fail(call, 1, CUDA_ERROR_LAUNCH_FAILED);
      EXPECT_TRUE(memory.attempt([&] {
        client_deallocate(first, one.view());
        client_deallocate(second, one.view());
      }));
      cenote_sim_fail(call, 0, 0);
      EXPECT_TRUE(memory.attempt([&] { reclaimer::of(0).free_pending(); }));
      reclaimer::of(0).free_pending();
      pool->check();
      const std::size_t lost = *pool->state().in_use;
      reset_resources();
      return lost;
    });
  }
}

TEST_F(host_memory_shortages, become_a_status_in_c) {
  const int client = cenote_register_client("shortage");
  run(30, [&](shortage& memory) {
    const auto attempt = [&](auto&& call) { EXPECT_TRUE(memory.attempt(call)); };
    attempt([&] { cenote_set_device_resource(0, "statistics | pool:initial=4MiB,max=16MiB | cuda"); });
    void* block = nullptr;
    attempt([&] { block = cenote_allocate(client, 0, 5 * MiB, a().value()); });
    attempt([&] { cenote_allocate(client, 0, 16 * GiB, a().value()); });  // more than there is
    attempt([&] { cenote_last_error(); });
    attempt([&] { cenote_record_stream(block, b().value()); });
    cenote_memory_state state{};
    state.struct_size = sizeof(state);
    attempt([&] { cenote_get_memory_state(0, &state); });
    attempt([&] { cenote_deallocate(block, b().value()); });
    attempt([&] { cenote_deallocate(&state, nullptr); });
    attempt([&] { cenote_trim(0); });
    attempt([&] { cenote_reset_device_resource(0); });
    cenote_trim(0);
    const std::size_t lost = get_per_device_resource(0)->state().in_use.value_or(0);
    reset_resources();
    return lost;
  });
}

TEST_F(host_memory_shortages, leave_containers_as_they_were) {
  run(10, [&](shortage& memory) {
    const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 0);
    {
      std::optional<device_buffer> buffer;
      std::optional<device_uvector<int>> numbers;
      std::optional<device_scalar<int>> number;
      memory.attempt([&] { buffer.emplace(1000, a(), pool); });
      memory.attempt([&] { numbers.emplace(1000, a(), pool); });
      memory.attempt([&] { number.emplace(a(), pool); });
      if (buffer) {
        const bool is_larger = memory.attempt([&] { buffer->resize(3 * MiB, b()); });
        EXPECT_EQ(buffer->size(), is_larger ? 3 * MiB : 1000);
        memory.attempt([&] { buffer->shrink_to_fit(a()); });
      }
      if (numbers) memory.attempt([&] { numbers->resize(100000, b()); });
      EXPECT_TRUE(memory.attempt([&] { number.reset(); }));
      EXPECT_TRUE(memory.attempt([&] { numbers.reset(); }));
      EXPECT_TRUE(memory.attempt([&] { buffer.reset(); }));
    }
    pool->check();
    return *pool->state().in_use;
  });
}

TEST_F(host_memory_shortages, leave_no_stream_and_no_event) {
  run(3, [&](shortage& memory) {
    std::optional<cuda_stream_pool> pool;
    std::shared_ptr<event> moment;
    memory.attempt([&] { pool.emplace(0, 4); });
    memory.attempt([&] { moment = event::record(a(), 0); });
    memory.attempt([&] { wait_for_all_work(b(), 0); });
    EXPECT_TRUE(memory.attempt([&] { moment.reset(); }));
    EXPECT_TRUE(memory.attempt([&] { pool.reset(); }));
    return std::size_t{0};
  });
}

TEST_F(host_memory_shortages, are_survived_by_destructors_that_the_driver_refuses) {
  auto stream = std::make_unique<cuda_stream>(0);
  auto moment = event::record(a(), 0);
  CUstream const stream_left = stream->value();
  CUevent const event_left = moment->value();
  cenote_sim_fail("cuStreamDestroy", 1, CUDA_ERROR_LAUNCH_FAILED);
  cenote_sim_fail("cuEventDestroy", 1, CUDA_ERROR_LAUNCH_FAILED);
  shortage memory(0, for_good);
  captured_stderr reports;
  EXPECT_TRUE(memory.attempt([&] {
    stream.reset();
    moment.reset();
  }));
  EXPECT_EQ(reports.text(),
            "cenote: cuStreamDestroy failed: CUDA_ERROR_LAUNCH_FAILED (719): launch failed\n"
            "cenote: cuEventDestroy failed: CUDA_ERROR_LAUNCH_FAILED (719): launch failed\n");
  EXPECT_EQ(cuStreamDestroy(stream_left), CUDA_SUCCESS);
  EXPECT_EQ(cuEventDestroy(event_left), CUDA_SUCCESS);
}

TEST_F(host_memory_shortages, leave_a_capture_alone) {
  run(5, [&](shortage& memory) {
    const auto pool = std::make_shared<pool_memory_resource>(make_resource("async", 0), 1 * MiB);
    cenote_capture_begin(0);
    EXPECT_EQ(cuStreamBeginCapture(a().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
    for (int i = 0; i < 4; ++i) {
      void* block = nullptr;
      memory.attempt([&] { block = pool->try_allocate(a(), 3 * MiB); });
      EXPECT_TRUE(memory.attempt([&] { pool->deallocate(a(), block, 3 * MiB); }));
    }
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(a().value(), &graph), CUDA_SUCCESS);
    EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
    cenote_capture_end(0);
    pool->check();
    return *pool->state().in_use;
  });
}

TEST_F(host_memory_shortages, of_the_programs_own_functions_are_reported) {
  const auto upstream = std::make_shared<cuda_memory_resource>(0);
  const auto fail_to_free = [&](const std::function<void()>& failure) {
    callback_memory_resource resource(
        0, [&](stream_ref stream, std::size_t bytes) { return upstream->allocate(stream, bytes); },
        [&](stream_ref stream, void* pointer, std::size_t bytes) {
          upstream->deallocate(stream, pointer, bytes);
          failure();
        });
    captured_stderr reports;
    resource.deallocate({}, resource.allocate({}, 1000), 1000);
    return reports.text();
  };
  const std::string function = "the deallocate function of a callback resource failed";
  EXPECT_EQ(fail_to_free([] { throw std::bad_alloc(); }), "cenote: " + function + ": std::bad_alloc\n");
  EXPECT_EQ(fail_to_free([] { throw 7; }), "cenote: " + function + "\n");
}

/// A resource of the program's whose free throws.
class unreliable_resource final : public memory_resource {
 public:
  unreliable_resource() : memory_resource(0) {}
  std::string kind() const override { return "unreliable"; }

 private:
  void* do_allocate(stream_ref, std::size_t, std::size_t) override { return reinterpret_cast<void*>(1 * MiB); }
  void do_deallocate(stream_ref, void*, std::size_t, std::size_t) override { throw std::runtime_error("unreliable"); }
};

TEST_F(host_memory_shortages, and_other_failures_of_a_free_end_where_it_began) {
  const auto under = std::make_shared<unreliable_resource>();
  const resource_ptr all[] = {under,
                              std::make_shared<statistics_resource_adaptor>(under),
                              std::make_shared<limiting_resource_adaptor>(under, 1 * GiB),
                              std::make_shared<tracking_resource_adaptor>(under),
                              std::make_shared<thread_safe_resource_adaptor>(under),
                              std::make_shared<aligned_resource_adaptor>(under)};
  captured_stderr reports;
  for (const resource_ptr& resource : all) {
    void* const block = resource->allocate({}, 1000);
    resource->deallocate({}, block, 1000);
    resource->deallocate({}, resource->allocate({}, 1000), 1000);  // no lock is left
  }
  all_reports() += reports.text();
  EXPECT_NE(all_reports().find("a block is leaked, as freeing it failed: unreliable"), std::string::npos);
}

TEST_F(host_memory_shortages, silence_no_report) {
  shortage memory(0, for_good);
  captured_stderr text;
  EXPECT_TRUE(memory.attempt([] {
    report_once("a report of ", 3, " parts at ", reinterpret_cast<const void*>(std::uintptr_t{0xABC}),
                ", which is too "
                "long for the room that a std::string has in itself");
    log(log_level::warn, "a line of the log, which is too long for the room that a std::string has in itself");
  }));
  start_listening();
  EXPECT_TRUE(memory.attempt([] { report_once("a line for a listener for which the queue has no memory"); }));
  stop_listening();
  EXPECT_TRUE(memory.has_begun());
  EXPECT_EQ(text.text(),
            "cenote: a report of 3 parts at 0xabc, which is too long for the room that a std::string has in itself\n"
            "cenote: warn: a line of the log, which is too long for the room that a std::string has in itself\n"
            "cenote: a line for a listener for which the queue has no memory\n");
}

/// In a process of its own, in which nothing of cenote has been used before.
TEST(host_memory_shortages_at_first_use, are_survived) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto frees_first_of_all = [] {
    shortage memory(0, for_good);
    int no_block = 0;
    const bool survived = memory.attempt([&] {
      client_deallocate(&no_block, {});
      client_share(&no_block);
      cenote_deallocate(&no_block, nullptr);
      cenote_last_error();
      usage();
      report_once("a report");
    });
    _exit(survived ? 0 : 1);
  };
  EXPECT_EXIT(frees_first_of_all(), testing::ExitedWithCode(0), "a report");
}

}  // namespace
}  // namespace cenote::test
