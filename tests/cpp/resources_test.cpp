// What every resource and every adaptor promises, one suite over a table of all of them.
#include <atomic>
#include <map>
#include <mutex>
#include <ostream>
#include <thread>

#include "cenote/surface/specification.hpp"
#include "simulated.hpp"

namespace cenote::test {
namespace {

struct row {
  const char* name;
  const char* specification;
  bool is_host_accessible;
  bool is_stream_ordered;
  std::size_t largest = 3 * GiB;  // what can be allocated of the device's 8 GiB
};

void PrintTo(const row& r, std::ostream* out) { *out << r.specification; }

const row table[] = {
    {"cuda", "cuda", false, false},
    {"managed", "managed", true, false},
    {"pinned", "pinned", true, false},
    {"async", "async", false, true},
    {"async_that_releases", "async:initial=4MiB,release_threshold=0", false, true},
    {"pool_over_cuda", "pool:initial=16MiB | cuda", false, true},
    {"pool_over_managed", "pool:initial=16MiB | managed", true, true},
    {"pool_over_pinned", "pool:initial=16MiB | pinned", true, true},
    {"pool_over_async", "pool:initial=16MiB | async", false, true},
    {"pool_over_pool", "pool:initial=0 | pool:initial=16MiB | cuda", false, true},
    {"capped_pool", "pool:initial=2MiB,max=64MiB | cuda", false, true, 64 * MiB},
    {"async_managed", "async_managed", true, true},
    {"system", "system", true, false},
    {"sam_headroom", "sam_headroom:headroom=7GiB", true, false},
    {"pool_over_system", "pool:initial=16MiB | system", true, true},
    {"arena", "arena:size=64MiB | cuda", false, true, 64 * MiB},
    {"arena_over_async", "arena:size=64MiB | async", false, true, 64 * MiB},
    {"fixed_size", "fixed_size:block_size=32MiB,preallocate=2 | cuda", false, true, 32 * MiB},
    {"fixed_size_on_demand", "fixed_size:block_size=32MiB,preallocate=0 | async", false, true, 32 * MiB},
    {"binning", "binning:min=8,max=18 | cuda", false, true},
    {"binning_over_pool", "binning:min=8,max=12 | pool:initial=16MiB | managed", true, true},
    {"binning_without_bins", "binning | pinned", true, false},
    {"statistics", "statistics | cuda", false, false},
    {"statistics_over_pool", "statistics | pool:initial=16MiB | cuda", false, true},
    {"logging", "logging:file=/tmp/cenote_resources_test.csv | managed", true, false},
    {"all_at_once",
     "logging:file=/tmp/cenote_resources_test.csv | statistics | pool:initial=4MiB | statistics | pool:initial=16MiB | "
     "async",
     false, true},
};

class resource : public simulated_device, public testing::WithParamInterface<row> {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    resource_ = make_resource(GetParam().specification, 0);
    stream_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    EXPECT_NO_THROW(resource_->check());
    synchronize_device(0);
    stream_.reset();
    resource_.reset();
    std::remove("/tmp/cenote_resources_test.dev0.csv");
    simulated_device::TearDown();
  }

  stream_ref stream() const { return stream_->view(); }

  std::shared_ptr<memory_resource> resource_;
  std::optional<cuda_stream> stream_;
};

TEST_P(resource, says_what_its_memory_is) {
  EXPECT_EQ(resource_->is_host_accessible(), GetParam().is_host_accessible);
  EXPECT_EQ(resource_->is_stream_ordered(), GetParam().is_stream_ordered);
  EXPECT_EQ(resource_->device(), 0);
  EXPECT_EQ(std::string(GetParam().specification).find(resource_->kind()), 0u);
}

TEST_P(resource, gives_null_for_zero_bytes_and_takes_null_back) {
  const call_count all_calls(nullptr);
  EXPECT_EQ(resource_->allocate(stream(), 0), nullptr);
  EXPECT_EQ(resource_->allocate_sync(0), nullptr);
  resource_->deallocate(stream(), nullptr, 0);
  resource_->deallocate(stream(), nullptr, 100);
  resource_->deallocate_sync(nullptr, 0);
  EXPECT_EQ(all_calls.value(), 0) << "nothing costs nothing";
}

TEST_P(resource, aligns_to_256_bytes_whatever_less_is_asked_for) {
  std::vector<std::pair<void*, std::size_t>> blocks;
  for (const std::size_t bytes : {1u, 255u, 256u, 257u, 1000u, 100'000u}) {
    for (const std::size_t alignment : {1u, 8u, 256u}) {
      void* const block = resource_->allocate(stream(), bytes, alignment);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 256, 0u);
      blocks.emplace_back(block, bytes);
    }
  }
  for (const auto& [block, bytes] : blocks) resource_->deallocate(stream(), block, bytes);
}

TEST_P(resource, refuses_an_alignment_that_is_no_power_of_two) {
  for (const std::size_t alignment : {0u, 3u, 257u, 768u}) {
    EXPECT_THROW(resource_->allocate(stream(), 1024, alignment), std::invalid_argument) << alignment;
    EXPECT_THROW(resource_->try_allocate(stream(), 1024, alignment), std::invalid_argument) << alignment;
    EXPECT_THROW(resource_->allocate_sync(1024, alignment), std::invalid_argument) << alignment;
  }
}

TEST_P(resource, gives_any_larger_alignment) {
  std::vector<std::pair<void*, std::size_t>> blocks;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t alignment = 512; alignment <= 64 * KiB; alignment *= 2) {
      void* const block = resource_->allocate(stream(), 1000, alignment);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0u);
      fill_async(block, 1, 1000, stream(), 0);
      blocks.emplace_back(block, alignment);
    }
  }
  for (const auto& [block, alignment] : blocks) resource_->deallocate(stream(), block, 1000, alignment);
  EXPECT_EQ(resource_->try_allocate(stream(), 1000, std::size_t{1} << 62), nullptr) << "more than there are addresses";
}

TEST_P(resource, live_allocations_are_disjoint_and_keep_their_bytes) {
  std::mt19937_64 random(7);
  std::map<std::uintptr_t, std::size_t> live;
  std::map<std::uintptr_t, unsigned char> tokens;
  for (int step = 0; step < 300; ++step) {
    if (live.size() < 40 && random() % 3 != 0) {
      const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 17));
      void* const block = resource_->allocate(stream(), bytes);
      const auto base = reinterpret_cast<std::uintptr_t>(block);
      const auto above = live.lower_bound(base);
      ASSERT_TRUE(above == live.end() || base + bytes <= above->first);
      ASSERT_TRUE(above == live.begin() || std::prev(above)->first + std::prev(above)->second <= base);
      live[base] = bytes;
      tokens[base] = static_cast<unsigned char>(random());
      fill_async(block, tokens[base], bytes, stream(), 0);
    } else if (!live.empty()) {
      const auto [base, bytes] = *std::next(live.begin(), static_cast<long>(random() % live.size()));
      auto* const block = reinterpret_cast<void*>(base);
      ASSERT_TRUE(all_are(read(block, bytes, stream()), tokens[base]));
      resource_->deallocate(stream(), block, bytes);
      live.erase(base);
    }
  }
  for (const auto& [base, bytes] : live) resource_->deallocate(stream(), reinterpret_cast<void*>(base), bytes);
}

TEST_P(resource, throws_out_of_memory_with_numbers_for_a_pebibyte) {
  constexpr std::size_t pebibyte = std::size_t{1} << 50;
  EXPECT_EQ(resource_->try_allocate(stream(), pebibyte), nullptr);
  try {
    resource_->allocate(stream(), pebibyte);
    FAIL() << "a pebibyte was allocated";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.requested(), pebibyte);
    EXPECT_TRUE(error.state().device_total.has_value());
    const std::string text = error.what();
    EXPECT_NE(text.find("1.00 PiB (1125899906842624 bytes)"), std::string::npos) << text;
    EXPECT_NE(text.find(describe(*resource_)), std::string::npos) << text;
    EXPECT_NE(text.find("device total 8.00 GiB"), std::string::npos) << text;
  }
  EXPECT_THROW(resource_->allocate_sync(pebibyte), out_of_memory);
  EXPECT_THROW(resource_->allocate(stream(), ~std::size_t{0}), std::bad_alloc);
  void* const block = resource_->allocate(stream(), 256);  // still of use
  resource_->deallocate(stream(), block, 256);
}

TEST_P(resource, remembers_its_device_while_another_is_current) {
  const device_scope elsewhere(1);
  void* const block = resource_->allocate(stream(), 1 * MiB);
  const bool is_heap = std::string(GetParam().name).find("sam_") == 0 || describe(*resource_).ends_with("system");
  const std::optional<int> owner = is_heap ? std::nullopt : std::optional(0);  // the driver does not know the heap
  EXPECT_EQ(device_of(block, 0), owner);
  fill_async(block, 9, 1 * MiB, stream(), 0);
  EXPECT_TRUE(all_are(read(block, 1 * MiB, stream()), 9));
  resource_->deallocate(stream(), block, 1 * MiB);
  void* const synchronous = resource_->allocate_sync(1 * MiB);
  EXPECT_EQ(device_of(synchronous, 0), owner);
  resource_->deallocate_sync(synchronous, 1 * MiB);
  resource_->state();
  resource_->trim();
  resource_->check();
  EXPECT_EQ(current_device(), 1) << "the caller's device is current again";
}

TEST_P(resource, uses_the_default_streams_of_its_own_device) {
  const device_scope elsewhere(1);
  for (const stream_ref stream : {stream_ref{}, stream_ref(CU_STREAM_LEGACY), stream_ref(CU_STREAM_PER_THREAD)}) {
    void* const block = resource_->allocate(stream, 1 * MiB);
    fill_async(block, 3, 1 * MiB, stream, 0);
    EXPECT_TRUE(all_are(read(block, 1 * MiB, stream), 3));
    resource_->deallocate(stream, block, 1 * MiB);
  }
}

TEST_P(resource, memory_is_the_hosts_too_where_it_says_so) {
  if (!resource_->is_host_accessible()) {
    EXPECT_FALSE(GetParam().is_host_accessible);
    return;
  }
  auto* const block = static_cast<unsigned char*>(resource_->allocate_sync(4096));
  std::fill_n(block, 4096, static_cast<unsigned char>(5));
  EXPECT_TRUE(all_are(read(block, 4096, stream()), 5));
  fill_async(block, 6, 4096, stream(), 0);
  synchronize(stream(), 0);
  EXPECT_EQ(std::count(block, block + 4096, 6), 4096);
  resource_->deallocate_sync(block, 4096);
}

TEST_P(resource, memory_stays_whole_for_work_that_was_queued_before_it_was_freed) {
  void* const witness = device_allocate(0, 1 * MiB);
  for (int i = 0; i < 4; ++i) {
    void* const block = resource_->allocate(stream(), 1 * MiB);
    fill_async(block, 0xAA, 1 * MiB, stream(), 0);
    copy_async(witness, block, 1 * MiB, stream(), 0);
    resource_->deallocate(stream(), block, 1 * MiB);
  }
  EXPECT_TRUE(all_are(read(witness, 1 * MiB, stream()), 0xAA));
  device_free(0, witness);
}

TEST_P(resource, allocating_and_freeing_beside_the_capture_of_another_stream_leave_it_valid) {
  void* const before = resource_->allocate(stream(), 64 * KiB);
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  ASSERT_EQ(cuStreamBeginCapture(captured.view().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  resource_->deallocate(stream(), before, 64 * KiB);
  void* const beside = resource_->allocate(stream(), 32 * MiB);
  resource_->deallocate(stream(), beside, 32 * MiB);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(captured.view().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
}

TEST_P(resource, what_is_freed_can_be_allocated_again) {
  const std::size_t bytes = GetParam().largest;
  for (int i = 0; i < 8; ++i) {  // in all more than there is
    void* const block = resource_->try_allocate(stream(), bytes);
    ASSERT_NE(block, nullptr) << i;
    resource_->deallocate(stream(), block, bytes);
  }
}

/// Threads allocate, write, pass on and free, each on a stream of its own or on one that all share.
TEST_P(resource, serves_many_threads_and_streams_at_once) {
  constexpr unsigned thread_count = 8;
  constexpr int steps = 120;
  struct parcel {
    void* block;
    std::size_t bytes;
    unsigned char token;
    std::shared_ptr<event> written;
  };
  std::mutex mutex;  // guards `parcels`
  std::vector<parcel> parcels;
  std::atomic<int> wrong{0};
  const cuda_stream shared(0, cuda_stream::kind::non_blocking);

  const auto check_and_free = [&](const parcel& p, stream_ref stream) {
    wait(stream, *p.written, 0);
    if (!all_are(read(p.block, p.bytes, stream), p.token)) ++wrong;
    resource_->deallocate(stream, p.block, p.bytes);
  };
  const auto work = [&](unsigned thread) {
    std::mt19937_64 random(100 + thread);
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < steps; ++i) {
      const stream_ref stream = random() % 4 == 0 ? shared.view() : own.view();
      parcel mine{
          nullptr, 1 + random() % (std::size_t{1} << (random() % 15)), static_cast<unsigned char>(random()), {}};
      mine.block = resource_->try_allocate(stream, mine.bytes);
      if (mine.block == nullptr) {
        ++wrong;
        continue;
      }
      fill_async(mine.block, mine.token, mine.bytes, stream, 0);
      mine.written = event::record(stream, 0);
      std::optional<parcel> theirs;
      {
        const std::lock_guard lock(mutex);
        parcels.push_back(std::move(mine));
        if (parcels.size() > 16 || random() % 2 == 0) {
          std::swap(parcels[random() % parcels.size()], parcels.back());
          theirs = std::move(parcels.back());
          parcels.pop_back();
        }
      }
      if (theirs) check_and_free(*theirs, random() % 4 == 0 ? shared.view() : own.view());
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < thread_count; ++t) threads.emplace_back(work, t);
  for (std::thread& t : threads) t.join();
  for (const parcel& p : parcels) check_and_free(p, stream());
  EXPECT_EQ(wrong, 0) << "blocks with another's bytes, or allocations that failed";
}

INSTANTIATE_TEST_SUITE_P(all, resource, testing::ValuesIn(table), [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace cenote::test
