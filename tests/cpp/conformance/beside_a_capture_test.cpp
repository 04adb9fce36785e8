// Which calls may end a capture: none that is not said to. Every kind of resource, every public call of it and of what
// stands on it, beside a capture of each mode, announced or not, of a blocking stream or of another kind, on the thread
// that captures and on another one.
//
// May end a capture, as cenote's pages say: what needs an event over all work of the device, beside a capture that
// nobody announced, of a stream that is not a blocking one. The driver cannot be asked about those.
#include <cuda.h>

#include <thread>

#include "cenote/adaptors/guard_resource_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/containers/device_buffer.hpp"
#include "cenote/containers/device_scalar.hpp"
#include "cenote/containers/device_uvector.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/surface/registry.hpp"
#include "cenote/surface/specification.hpp"
#include "support/clients.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

struct driver_calls {
  decltype(&::cuStreamBeginCapture) begin =
      driver_function<decltype(::cuStreamBeginCapture)>("cuStreamBeginCapture_v2");
  decltype(&::cuStreamEndCapture) end = driver_function<decltype(::cuStreamEndCapture)>("cuStreamEndCapture");
  decltype(&::cuGraphDestroy) destroy = driver_function<decltype(::cuGraphDestroy)>("cuGraphDestroy");
};

const driver_calls& driver_of_the_test() {
  static const driver_calls found;
  return found;
}

/// What a call has to do with: a resource that holds two blocks of `other`, a stream beside the one that is captured.
struct scene {
  const stack& kind;
  resource_ptr resource;
  stream_ref other;
  std::vector<void*> blocks;
  void* through_the_ledger = nullptr;
  client_index client = register_client("beside a capture");
};

constexpr std::size_t block_bytes = 100 * KiB;
constexpr std::size_t too_much = std::size_t{1} << 50;  // for any machine

struct call {
  const char* name;
  std::function<void(scene&)> make;
  /// Whether it may need an event over all work of the device.
  bool needs_all_work = false;
};

void must(bool is_so, const char* otherwise) {
  if (!is_so) throw std::runtime_error(otherwise);
}

void run_out(scene& at) {
  try {
    at.resource->allocate(at.other, too_much);
    must(false, "there was as much");
  } catch (const std::bad_alloc&) {
  }
  must(at.resource->try_allocate(at.other, too_much) == nullptr, "there was as much");
}

const std::vector<call>& every_call() {
  static const std::vector<call> all = {
      {"state", [](scene& at) { at.resource->state(); }},
      {"check", [](scene& at) { at.resource->check(); }},
      {"describe", [](scene& at) { describe(*at.resource); }},
      {"allocate and deallocate",
       [](scene& at) {
         void* const block = at.resource->allocate(at.other, block_bytes);
         at.resource->deallocate(at.other, block, block_bytes);
       }},
      {"deallocate",
       [](scene& at) {
         at.resource->deallocate(at.other, at.blocks.back(), block_bytes);
         at.blocks.pop_back();
       }},
      {"allocate much",
       [](scene& at) {
         void* const block = at.resource->allocate(at.other, largest);
         at.resource->deallocate(at.other, block, largest);
       },
       true},
      {"run out", run_out, true},
      {"allocate_sync and deallocate_sync",
       [](scene& at) {
         void* const block = at.resource->allocate_sync(block_bytes);
         at.resource->deallocate_sync(block, block_bytes);
       }},
      {"trim", [](scene& at) { at.resource->trim(); }, true},
      {"make one", [](scene& at) { at.kind.make(0); }, true},  // and its end
      {"make the current one",
       [](scene& at) {
         set_per_device_resource(0, at.kind.make(0));
         reset_per_device_resource(0);
         set_per_device_resource(0, at.resource);
       },
       true},
      {"figures in C",
       [](scene&) {
         cenote_memory_state figures{};
         figures.struct_size = sizeof figures;
         must(cenote_get_memory_state(0, &figures) == CENOTE_OK, cenote_last_error());
         must(cenote_get_device_resource(0, nullptr, 0) >= 0, cenote_last_error());
         usage();
       }},
      {"trim in C", [](scene&) { must(cenote_trim(0) >= 0, cenote_last_error()); }, true},
      {"the pair in C",
       [](scene& at) {
         void* const block = cenote_allocate(at.client, 0, block_bytes, at.other.value());
         must(block != nullptr, cenote_last_error());
         must(cenote_deallocate(block, at.other.value()) == CENOTE_OK, cenote_last_error());
       }},
      {"the pair without a stream in C",
       [](scene& at) {
         void* const block = cenote_allocate_sync(at.client, 0, block_bytes);
         must(block != nullptr, cenote_last_error());
         must(cenote_deallocate_sync(block) == CENOTE_OK, cenote_last_error());
       }},
      {"free of a shared block in C",
       [](scene& at) {
         client_share(at.through_the_ledger);
         must(cenote_deallocate(std::exchange(at.through_the_ledger, nullptr), at.other.value()) == CENOTE_OK,
              cenote_last_error());
       },
       true},
      {"run out in C",
       [](scene& at) {
         must(cenote_allocate(at.client, 0, too_much, at.other.value()) == nullptr, "there was as much");
       },
       true},
      {"a buffer",
       [](scene& at) {
         std::vector<unsigned char> bytes(5000, 7);
         device_buffer buffer(bytes.data(), bytes.size(), at.other, at.resource);
         buffer.copy_to(bytes.data(), bytes.size(), at.other);
         synchronize(at.other, 0);
         buffer.resize(10000, at.other);
         buffer.shrink_to_fit(at.other);
         must(all_are(read(buffer.data(), 5000, at.other), 7), "other bytes");
       }},
      {"a vector and a scalar",
       [](scene& at) {
         device_uvector<int> vector(100, at.other, at.resource);
         vector.set_element(3, 5, at.other);
         must(vector.element(3, at.other) == 5, "another number");
         const int eight = 8;
         must(device_scalar<int>(eight, at.other, at.resource).value(at.other) == 8, "another number");
       }},
      {"streams and events",
       [](scene& at) {
         const cuda_stream fresh(0, cuda_stream::kind::non_blocking);
         order_after(fresh.view(), at.other, 0);
         fresh.synchronize();
         const auto happened = event::record(at.other, 0);
         happened->synchronize();
         must(happened->is_complete(), "not complete");
         must(is_done(at.other, 0), "not done");
         synchronize(per_thread_default_stream(), 0);
         identify(at.other, 0);
       }},
      {"what the device is",
       [](scene&) {
         device_memory_info(0);
         device_name(0);
         current_device();
       }},
      {"look at the guards",
       [](scene& at) {
         auto* const guard = dynamic_cast<guard_resource_adaptor*>(at.resource.get());
         if (guard == nullptr) return;
         try {
           guard->find_overruns();
         } catch (const std::logic_error&) {  // it says that it cannot now
         }
       },
       true},
  };
  return all;
}

/// What stands beside the call.
struct setting {
  CUstreamCaptureMode mode;
  bool is_announced;
  cuda_stream::kind captured;
  bool is_on_another_thread;

  bool may_be_ended_by(const call& made) const {
    return made.needs_all_work && !is_announced && captured == cuda_stream::kind::non_blocking;
  }
};

std::ostream& operator<<(std::ostream& out, const setting& s) {
  constexpr const char* modes[] = {"a global", "a thread-local", "a relaxed"};
  return out << "beside " << modes[s.mode] << " capture of a "
             << (s.captured == cuda_stream::kind::sync_default ? "blocking" : "non-blocking") << " stream, "
             << (s.is_announced ? "announced" : "not announced") << ", on "
             << (s.is_on_another_thread ? "another" : "the same") << " thread";
}

std::vector<setting> every_setting() {
  std::vector<setting> all;
  for (const auto mode :
       {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_RELAXED}) {
    for (const bool is_announced : {false, true}) {
      for (const auto captured : {cuda_stream::kind::sync_default, cuda_stream::kind::non_blocking}) {
        for (const bool is_on_another_thread : {false, true})
          all.push_back({mode, is_announced, captured, is_on_another_thread});
      }
    }
  }
  return all;
}

class beside_a_capture : public clients, public testing::WithParamInterface<stack> {
 protected:
  void SetUp() override {
    clients::SetUp();
    if (const std::string missing = GetParam().missing(0); !missing.empty()) GTEST_SKIP() << missing;
    set_current_device(0);
  }

  void TearDown() override {
    std::remove(log_file(".dev0").c_str());
    clients::TearDown();
  }

  void try_one(const call& made, const setting& with) {
    SCOPED_TRACE(testing::Message() << made.name << ' ' << with);
    const cuda_stream captured(0, with.captured);
    const cuda_stream other(0, cuda_stream::kind::non_blocking);
    scene at{GetParam(), GetParam().make(0), other.view(), {}};
    set_per_device_resource(0, at.resource);
    at.through_the_ledger = client_allocate(at.client, 0, block_bytes, at.other);
    for (int i = 0; i < 2; ++i) at.blocks.push_back(at.resource->allocate(at.other, block_bytes));
    void* const freed = at.resource->allocate(at.other, block_bytes);
    at.resource->deallocate(at.other, freed, block_bytes);

    if (with.is_announced) cenote_capture_begin(0);
    ASSERT_EQ(driver_of_the_test().begin(captured.value(), with.mode), CUDA_SUCCESS);
    const auto run = [&] {
      try {
        made.make(at);
      } catch (const std::exception& error) {
        EXPECT_TRUE(with.may_be_ended_by(made)) << error.what();
      }
    };
    if (with.is_on_another_thread) {
      std::thread(run).join();
    } else {
      run();
    }
    CUgraph graph = nullptr;
    const CUresult ended = driver_of_the_test().end(captured.value(), &graph);
    if (graph != nullptr) driver_of_the_test().destroy(graph);
    if (with.is_announced) cenote_capture_end(0);
    if (with.may_be_ended_by(made)) {
      if (simulator() != nullptr) simulator()->clear_violations();
    } else {
      EXPECT_EQ(ended, CUDA_SUCCESS) << "the capture was ended";
    }

    for (void* const block : at.blocks) at.resource->deallocate(at.other, block, block_bytes);
    if (at.through_the_ledger != nullptr) client_deallocate(at.through_the_ledger, at.other);
    reset_resources();
    reclaimer::of(0).free_pending();
    at.resource->check();
  }
};

TEST_P(beside_a_capture, no_call_ends_it_that_is_not_said_to) {
  for (const setting& with : every_setting()) {
    for (const call& made : every_call()) {
      try_one(made, with);
      if (HasFatalFailure() || HasNonfatalFailure()) return;  // the first says enough
    }
  }
}

std::vector<stack> parts_and_pools() {
  std::vector<stack> all = every_part();
  for (const stack& each : every_stack()) {
    if (each.parts.size() == 2 && each.name().starts_with("pool_over_") && !each.name().ends_with("_cuda"))
      all.push_back(each);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(of, beside_a_capture, testing::ValuesIn(parts_and_pools()), stack_name);

}  // namespace
}  // namespace cenote::test
