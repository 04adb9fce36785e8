// Every call that a workload makes of the driver fails once: each step then succeeds, says that memory ran out, or
// throws what failed; a second try succeeds; the bookkeeping is whole; and nothing is lost but what the driver refused
// to take.
#include <functional>
#include <set>

#include "cenote/containers/device_buffer.hpp"
#include "cenote/surface/specification.hpp"
#include "support/clients.hpp"
#include "support/simulated.hpp"
#include "support/stacks.hpp"

extern "C" {  // of the leak sanitizer, where the program is built with it
void __lsan_disable() __attribute__((weak));
void __lsan_enable() __attribute__((weak));
}

namespace cenote::test {
namespace {

const std::set<std::string> allocating_calls = {"cuMemAlloc", "cuMemAllocManaged", "cuMemHostAlloc",
                                                "cuMemAllocFromPoolAsync"};

/// What a free goes through: if it fails, that one object stays the program's, which is reported on stderr.
const std::set<std::string> calls_of_a_free = {"cuMemFree",           "cuMemFreeHost",
                                               "cuMemFreeAsync",      "cuMemPoolDestroy",
                                               "cuEventDestroy",      "cuStreamDestroy",
                                               "cuCtxGetCurrent",     "cuCtxPushCurrent",
                                               "cuStreamSynchronize", "cuThreadExchangeStreamCaptureMode"};

struct failure {
  std::string call;
  int nth = 0;
  int error = 0;
};

/// Runs steps, each a second time if it failed the first.
class run {
 public:
  explicit run(failure injected) : injected_(std::move(injected)) {
    if (injected_.nth != 0) cenote_sim_fail(injected_.call.c_str(), injected_.nth, injected_.error);
  }
  ~run() {
    if (injected_.nth != 0) cenote_sim_fail(injected_.call.c_str(), 0, 0);
  }
  run(const run&) = delete;
  run& operator=(const run&) = delete;

  template <class Step>
  void step(Step&& body) {
    try {
      body();
      return;
    } catch (const out_of_memory& error) {
      EXPECT_EQ(injected_.error, CUDA_ERROR_OUT_OF_MEMORY) << error.what();
    } catch (const cuda_error& error) {
      EXPECT_EQ(error.call(), injected_.call);
      EXPECT_EQ(error.code(), injected_.error);
      EXPECT_FALSE(error.name().empty());
    }
    EXPECT_NO_THROW(body()) << "the second try";
  }

 private:
  failure injected_;
};

using workload = std::function<void(run&)>;

/// The test's own calls are not the workload's: its streams are made beforehand.
struct two_streams {
  cuda_stream a{0, cuda_stream::kind::non_blocking};
  cuda_stream b{0, cuda_stream::kind::non_blocking};
};

void use_a_resource(run& run, const std::function<std::shared_ptr<memory_resource>()>& make,
                    const two_streams& streams) {
  const stream_ref on[] = {streams.a.view(), streams.b.view(), {}};
  std::shared_ptr<memory_resource> resource;
  run.step([&] { resource = make(); });
  ASSERT_NE(resource, nullptr);
  std::vector<std::pair<void*, std::size_t>> live;
  const auto allocate = [&](stream_ref stream, std::size_t bytes) {
    run.step([&] { live.emplace_back(resource->allocate(stream, bytes), bytes); });
    resource->check();
  };
  const auto free = [&](stream_ref stream) {
    resource->deallocate(stream, live.back().first, live.back().second);
    live.pop_back();
    resource->check();
  };

  for (int round = 0; round < 2; ++round) {
    for (const stream_ref stream : on) allocate(stream, 512 * KiB);
    allocate(on[0], 6 * MiB);  // more than the pools hold
    for (int i = 0; i < 2; ++i) free(on[0]);
    allocate(on[1], 6 * MiB);  // of the other stream's
    free(on[1]);
    allocate(on[2], 7 * MiB);
    free(on[2]);
    free(on[1]);
    allocate(on[1], 8 * MiB);  // the capped pools must give a chunk back for it
    free(on[1]);
    free(on[0]);
  }
  run.step([&] {
    void* const block = resource->allocate_sync(64 * KiB);
    resource->deallocate_sync(block, 64 * KiB);
  });
  run.step([&] { resource->trim(); });
  run.step([&] { resource->state(); });
  resource->check();
  if (resource->kind() == "pool") {
    run.step([&] { EXPECT_EQ(resource->state().in_use, 0u); });
  }
}

void use_the_registry(run& run, const two_streams& streams) {
  const client_index client = register_client("faults");
  std::shared_ptr<memory_resource> pool;
  run.step([&] { pool = make_resource("pool:initial=4MiB,max=8MiB | cuda", 0); });
  run.step([&] { set_per_device_resource(0, pool); });
  std::vector<void*> blocks;
  for (const std::size_t bytes : {std::size_t{1000}, 1 * MiB, 2 * MiB}) {
    run.step([&] { blocks.push_back(client_allocate(client, 0, bytes, streams.a.view())); });
  }
  run.step([&] { client_record_stream(blocks[0], streams.b.view()); });
  client_deallocate(blocks[0], streams.a.view());
  client_deallocate(blocks[1], streams.b.view());
  client_deallocate(blocks[2], streams.a.view());
  run.step([&] { set_per_device_resource(0, std::make_shared<cuda_memory_resource>(0)); });
  reclaimer::of(0).free_pending();  // what could not be ordered is tried again
  pool->check();
}

void use_a_buffer(run& run, const two_streams& streams) {
  const std::vector<unsigned char> bytes(5000, 7);
  std::optional<device_buffer> buffer;
  std::shared_ptr<memory_resource> resource;
  run.step([&] { resource = make_resource("statistics | pool:initial=4MiB,max=16MiB | async", 0); });
  run.step([&] { buffer.emplace(bytes.data(), bytes.size(), streams.a.view(), resource); });
  run.step([&] { buffer->resize(3 * MiB, streams.a.view()); });
  run.step([&] { EXPECT_TRUE(all_are(read(buffer->data(), bytes.size(), streams.a.view()), 7)); });
  run.step([&] { buffer->resize(5 * MiB, streams.a.view()); });
  run.step([&] { EXPECT_TRUE(all_are(read(buffer->data(), bytes.size(), streams.a.view()), 7)); });
  buffer.reset();
  resource->check();
}

/// As a thread that has done nothing yet: a failed pop or exchange leaves its state behind, which is reported.
void reset_thread() {
  CUcontext current = nullptr;
  for (cuCtxGetCurrent(&current); current != nullptr; cuCtxGetCurrent(&current)) cuCtxPopCurrent(&current);
  auto mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  cuThreadExchangeStreamCaptureMode(&mode);
}

std::vector<std::pair<std::string, int>> calls_made_by(const workload& work) {
  cenote_sim_reset_calls();
  run undisturbed({});
  work(undisturbed);
  std::vector<std::pair<std::string, int>> made;
  for (int i = 0; const char* const name = cenote_sim_name(i); ++i) {
    if (const auto calls = cenote_sim_calls(name); calls > 0) made.emplace_back(name, static_cast<int>(calls));
  }
  return made;
}

/// While it lives, what is allocated may be lost: memory of the system whose free could not wait for the device is
/// kept, rather than freed under running work, and the leak sanitizer would see it.
class expected_leak {
 public:
  explicit expected_leak(bool is_expected) : is_expected_(is_expected && &__lsan_disable != nullptr) {
    if (is_expected_) __lsan_disable();
  }
  ~expected_leak() {
    if (is_expected_) __lsan_enable();
  }
  expected_leak(const expected_leak&) = delete;
  expected_leak& operator=(const expected_leak&) = delete;

 private:
  bool is_expected_;
};

void fail_once(const workload& work, const failure& injected) {
  SCOPED_TRACE(testing::Message() << "call " << injected.nth << " of " << injected.call << " answers "
                                  << injected.error);
  finish_all_work();
  const auto before = live_objects();
  const std::uint64_t objects_before = live_object_count();
  {
    const expected_leak leak(calls_of_a_free.contains(injected.call));
    run disturbed(injected);
    work(disturbed);
  }
  reset_thread();
  finish_all_work();
  driver_pools::of(0).trim(nullptr);  // one that could not be told to keep nothing keeps until room is made
  const std::uint64_t lost = live_object_count() - objects_before;
  if (calls_of_a_free.contains(injected.call)) {
    EXPECT_LE(lost, 1u);
  } else {
    EXPECT_EQ(lost, 0u);
    EXPECT_LE(live_objects().device_bytes, before.device_bytes);
  }
  for (const std::string& line : violations()) ADD_FAILURE() << "violation: " << line;
  cenote_sim_clear_violations();
}

void fail_each_call_once(const workload& work) {
  const auto made = calls_made_by(work);
  ASSERT_FALSE(made.empty());
  for (const auto& [name, calls] : made) {
    for (int nth = 1; nth <= calls; ++nth) {
      fail_once(work, {name, nth, CUDA_ERROR_UNKNOWN});
      if (allocating_calls.contains(name)) fail_once(work, {name, nth, CUDA_ERROR_OUT_OF_MEMORY});
      if (testing::Test::HasFailure()) return;  // the first says enough
    }
  }
}

class faults : public testing::Test {
 protected:
  void SetUp() override {
    synchronize_device(0);
    void* const block = client_allocate(register_client("faults"), 0, 256, {});  // the reclaimer makes its stream
    client_share(block);
    client_deallocate(block, {});
    cenote_sim_clear_violations();
    streams_.emplace();
  }

  void TearDown() override { std::remove(log_file(".dev0").c_str()); }

  std::optional<two_streams> streams_;
  captured_stderr quiet_;  // each failure of a free is reported, by intention
};

class faults_in_one : public faults, public testing::WithParamInterface<stack> {};

TEST_P(faults_in_one, resource_or_adaptor_lose_nothing_and_can_be_tried_again) {
  fail_each_call_once([&](run& run) { use_a_resource(run, [] { return GetParam().make(0); }, *streams_); });
}

INSTANTIATE_TEST_SUITE_P(of, faults_in_one, testing::ValuesIn(every_part()), stack_name);

/// Stacks that are nearly full, so that they must give memory back.
class faults_in : public faults, public testing::WithParamInterface<const char*> {};

TEST_P(faults_in, a_full_stack_lose_nothing_and_can_be_tried_again) {
  fail_each_call_once([&](run& run) { use_a_resource(run, [] { return make_resource(GetParam(), 0); }, *streams_); });
}

INSTANTIATE_TEST_SUITE_P(of, faults_in,
                         testing::Values("pool:initial=4MiB,max=12MiB | cuda", "pool:initial=4MiB,max=12MiB | async",
                                         "pool:initial=4MiB,max=12MiB | managed",
                                         "pool:initial=4MiB,max=12MiB | pinned", "arena:size=12MiB | async",
                                         "pool:initial=0 | pool:initial=4MiB,max=64MiB | cuda",
                                         "thread_safe | pool:initial=4MiB,max=12MiB | prefetch | managed",
                                         "guard | pool:initial=4MiB,max=24MiB | cuda",
                                         "limiting:limit=12MiB | tracking | pool:initial=4MiB | async"),
                         [](const auto& tested) { return "number_" + std::to_string(tested.index); });

TEST_F(faults, in_the_registry_lose_nothing_and_can_be_tried_again) {
  fail_each_call_once([&](run& run) { use_the_registry(run, *streams_); });
}

TEST_F(faults, in_a_buffer_lose_nothing_and_can_be_tried_again) {
  fail_each_call_once([&](run& run) { use_a_buffer(run, *streams_); });
}

}  // namespace
}  // namespace cenote::test
