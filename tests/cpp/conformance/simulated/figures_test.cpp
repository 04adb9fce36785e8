// The figures that resources give of themselves, against a model: what is in use, what is held, and the largest block
// that could be had.
#include <bit>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/ground/immortal.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

using resource_ptr = std::shared_ptr<memory_resource>;

class figures : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    for (auto& stream : streams_) stream.emplace(0, cuda_stream::kind::non_blocking);
  }
  void TearDown() override {
    for (auto& stream : streams_) stream.reset();
    simulated_device::TearDown();
  }
  stream_ref stream(std::size_t i) const { return streams_[i % streams_.size()]->view(); }

 private:
  std::array<std::optional<cuda_stream>, 3> streams_;
};

struct stack_of_fixed_size {
  const char* name;
  std::string specification;
  std::function<std::size_t(std::size_t bytes)> in_use_of;  ///< what a block of so many bytes takes
  bool is_exact = true;                                     ///< nothing larger than the largest free block can be had
};

std::size_t rounded(std::size_t bytes) { return align_up(bytes, default_alignment); }

class figures_of_stacks : public figures, public testing::WithParamInterface<stack_of_fixed_size> {};

/// Small and large blocks on several streams, so that they lie in caches and in the heap, and some are freed
/// on other streams than their own.
TEST_P(figures_of_stacks, are_what_is_in_use_and_what_can_be_had) {
  const unsigned seed = testing::UnitTest::GetInstance()->random_seed() + 1u;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const resource_ptr resource = make_resource(GetParam().specification, 0);
  std::multimap<std::size_t, void*> live;  // by size
  std::size_t in_use = 0;
  const auto allocate = [&](stream_ref on, std::size_t bytes) {
    void* const block = resource->try_allocate(on, bytes);
    if (block == nullptr) return false;
    live.emplace(bytes, block);
    in_use += GetParam().in_use_of(bytes);
    return true;
  };
  for (int step = 0; step < 1500; ++step) {
    const stream_ref on = stream(random() % 3);
    if (!live.empty() && random() % 100 < 47) {
      auto freed = live.begin();
      std::advance(freed, random() % live.size());
      in_use -= GetParam().in_use_of(freed->first);
      resource->deallocate(on, freed->second, freed->first);
      live.erase(freed);
    } else {
      allocate(on, random() % 4 == 0 ? 1 + random() % (300 * KiB) : 256 * (1 + random() % 8));
    }
    if (step % 20 != 0) continue;
    const memory_state said = resource->state();
    ASSERT_EQ(said.in_use, in_use) << "after step " << step;
    ASSERT_GE(said.held.value_or(in_use), in_use);
    const std::size_t largest = said.largest_free.value();
    if (GetParam().is_exact) {
      EXPECT_EQ(resource->try_allocate(on, largest + 1), nullptr) << "after step " << step;
    }
    if (largest == 0) continue;
    void* const block = resource->try_allocate(on, largest);
    ASSERT_NE(block, nullptr) << largest << " bytes after step " << step;
    resource->deallocate(stream(random() % 3), block, largest);
  }
  for (const auto& [bytes, block] : live) resource->deallocate({}, block, bytes);
  EXPECT_EQ(resource->state().in_use, 0u);
  resource->check();
}

INSTANTIATE_TEST_SUITE_P(
    all, figures_of_stacks,
    testing::Values(stack_of_fixed_size{"arena", "arena:size=8MiB", rounded},
                    stack_of_fixed_size{"pool", "pool:initial=8MiB,max=8MiB | cuda", rounded},
                    stack_of_fixed_size{"pool_over_the_drivers", "pool:initial=8MiB,max=8MiB | async", rounded},
                    stack_of_fixed_size{"statistics", "statistics | tracking | thread_safe | arena:size=8MiB", rounded},
                    stack_of_fixed_size{"limiting", "limiting:limit=3000100 | arena:size=8MiB", rounded},
                    stack_of_fixed_size{"limiting_in_pages", "limiting:limit=6000100,alignment=4096 | arena:size=8MiB",
                                        [](std::size_t bytes) { return align_up(bytes, 4096); }},
                    stack_of_fixed_size{"guard", "guard | arena:size=8MiB",
                                        [](std::size_t bytes) { return rounded(256 + bytes + 256); }},
                    stack_of_fixed_size{"aligned", "aligned:alignment=4096 | arena:size=8MiB", rounded, false},
                    stack_of_fixed_size{"aligned_from_a_threshold_on",
                                        "aligned:alignment=4096,threshold=64KiB | arena:size=8MiB", rounded, false},
                    stack_of_fixed_size{"binning", "binning:min=8,max=12 | arena:size=8MiB",
                                        [](std::size_t bytes) {
                                          return bytes > 4096 ? rounded(bytes)
                                                              : std::max<std::size_t>(256, std::bit_ceil(bytes));
                                        },
                                        false}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(figures, count_nothing_as_in_use_where_nothing_is) {
  for (const char* const under : {"cuda", "async", "pool:initial=16MiB | cuda", "arena:size=64MiB"}) {
    SCOPED_TRACE(under);
    const resource_ptr upstream = make_resource(under, 0);
    const auto bins = std::make_shared<binning_memory_resource>(upstream, 8, 16);
    bins->add_bin(1 * MiB, std::make_shared<pool_memory_resource>(upstream, 0));
    EXPECT_EQ(bins->state().in_use, 0u);
    std::vector<std::pair<void*, std::size_t>> live;
    for (const std::size_t bytes : {std::size_t{100}, 5 * KiB, 60 * KiB, 700 * KiB, 3 * MiB})
      live.emplace_back(bins->allocate(stream(0), bytes), bytes);
    EXPECT_EQ(bins->state().in_use, 256u + 8 * KiB + 64 * KiB + 700 * KiB + 3 * MiB);
    EXPECT_GE(bins->state().held, bins->state().in_use);
    for (const auto& [block, bytes] : live) bins->deallocate(stream(0), block, bytes);
    EXPECT_EQ(bins->state().in_use, 0u);
  }
}

TEST_F(figures, name_no_block_that_a_capture_keeps) {
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 1 * MiB, 1 * MiB);
  cenote_capture_begin(0);
  ASSERT_EQ(cuStreamBeginCapture(stream(0).value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  void* const block = pool->allocate(stream(0), 768 * KiB);
  pool->deallocate(stream(0), block, 768 * KiB);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream(0).value(), &graph), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  cenote_capture_end(0);
  EXPECT_EQ(pool->state().in_use, 0u);
  EXPECT_EQ(pool->state().largest_free, 256 * KiB);
  EXPECT_EQ(pool->try_allocate(stream(1), 256 * KiB + 1), nullptr);
}

TEST_F(figures, of_paths_add_up_to_the_allocations) {
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 1 * MiB, 2 * MiB);
  std::mt19937 random(7);
  std::vector<std::pair<void*, std::size_t>> live;
  std::uint64_t allocations = 0;
  for (int step = 0; step < 3000; ++step) {
    if (live.empty() || random() % 2 == 0) {
      const std::size_t bytes = 256 * (1 + random() % 400);
      if (void* const block = pool->try_allocate(stream(random()), bytes)) {
        live.emplace_back(block, bytes);
        ++allocations;
      }
    } else {
      std::swap(live[random() % live.size()], live.back());
      pool->deallocate(stream(random()), live.back().first, live.back().second);
      live.pop_back();
    }
  }
  const pool_counters counted = pool->counters();
  EXPECT_EQ(counted.allocations, allocations);
  EXPECT_EQ(counted.from_front_cache + counted.from_own_stream + counted.from_ready + counted.from_other_stream +
                counted.from_upstream + counted.from_reclaim,
            allocations);
  for (const auto& [block, bytes] : live) pool->deallocate({}, block, bytes);
}

/// Sizes that frees come with, of blocks of 1000 bytes.
const std::size_t wrong_sizes[] = {1,
                                   999,
                                   1001,
                                   1024,
                                   1 * MiB,
                                   100 * MiB,
                                   256 * MiB + 1,
                                   std::size_t{1} << 62,
                                   max_allocation,
                                   std::size_t{1} << 63,
                                   ~std::size_t{0} - 4096,
                                   ~std::size_t{0}};

/// 100 MB in a limit of 256 MB: whatever sizes the frees of other blocks come with, no more than the rest is given out.
TEST_F(figures, of_a_limit_are_not_changed_by_frees_of_wrong_sizes) {
  for (const char* const under :
       {"pool:initial=4MiB | cuda", "statistics | aligned | arena:size=256MiB", "tracking | cuda", "guard | async"}) {
    SCOPED_TRACE(under);
    const auto limiting = std::make_shared<limiting_resource_adaptor>(make_resource(under, 0), 256 * MiB);
    captured_stderr reports;
    void* const held = limiting->allocate({}, 100 * MiB);
    for (const std::size_t wrong : wrong_sizes) {
      for (int again = 0; again < 9; ++again) limiting->deallocate({}, limiting->allocate({}, 1000), wrong);
      EXPECT_EQ(limiting->allocated_bytes(), 100 * MiB) << wrong;
      EXPECT_EQ(limiting->state().in_use, 100 * MiB);
      EXPECT_EQ(limiting->try_allocate({}, 156 * MiB + 1), nullptr) << wrong;
    }
    limiting->deallocate({}, held, 1000);
    EXPECT_EQ(limiting->allocated_bytes(), 0u);
  }
}

/// Where nobody knows the blocks, at least what no block has is not believed.
TEST_F(figures, of_a_limit_over_the_driver_are_not_changed_by_frees_of_sizes_that_no_block_has) {
  const auto limiting =
      std::make_shared<limiting_resource_adaptor>(std::make_shared<cuda_memory_resource>(0), 256 * MiB);
  captured_stderr reports;
  void* const held = limiting->allocate({}, 100 * MiB);
  for (const std::size_t wrong : wrong_sizes) {
    if (wrong > 256 * MiB) limiting->deallocate({}, limiting->allocate({}, 1000), wrong);
    EXPECT_GE(limiting->allocated_bytes(), 100 * MiB) << wrong;
    EXPECT_EQ(limiting->try_allocate({}, 156 * MiB + 1), nullptr) << wrong;
  }
  limiting->deallocate({}, held, 100 * MiB);
}

TEST_F(figures, are_not_changed_by_frees_of_what_is_no_block) {
  const auto counting = std::make_shared<statistics_resource_adaptor>(make_resource("pool:initial=4MiB", 0));
  const auto limiting = std::make_shared<limiting_resource_adaptor>(counting, 1 * MiB);
  captured_stderr reports;
  void* const held = limiting->allocate({}, 300 * KiB);
  void* const small = limiting->allocate({}, 1000);
  counting->push_counters();
  for (int again = 0; again < 3; ++again) {
    limiting->deallocate({}, small, 1000);
    limiting->deallocate({}, static_cast<std::byte*>(held) + 512, 200 * KiB);
    limiting->deallocate({}, &reports, 200 * KiB);
  }
  EXPECT_EQ(limiting->allocated_bytes(), 300 * KiB);
  EXPECT_EQ(counting->pop_counters().count.current, -1);
  EXPECT_EQ(counting->counters().bytes.current, std::int64_t{300 * KiB});
  EXPECT_EQ(counting->counters().count.current, 1);
  limiting->deallocate({}, held, 300 * KiB);
  EXPECT_EQ(counting->counters().bytes.current, 0);
}

TEST_F(figures, of_counters_are_not_changed_by_frees_of_wrong_sizes) {
  const auto counting = std::make_shared<statistics_resource_adaptor>(make_resource("pool:initial=4MiB", 0));
  captured_stderr reports;
  counting->push_counters();
  std::int64_t count = 0;
  for (const std::size_t wrong : wrong_sizes) {
    for (int again = 0; again < 9; ++again, ++count) counting->deallocate({}, counting->allocate({}, 1000), wrong);
  }
  for (const allocation_counters& seen : {counting->pop_counters(), counting->counters()}) {
    EXPECT_EQ(seen.count.current, 0);
    EXPECT_EQ(seen.count.total, count);
    EXPECT_EQ(seen.bytes.current, 0);
    EXPECT_EQ(seen.bytes.total, 1000 * count);
    EXPECT_EQ(seen.bytes.peak, 1000);
  }
}

/// Over the driver's plain memory nobody knows the sizes: the counts are wrong, and no more than that.
TEST_F(figures, of_counters_over_the_driver_stay_in_bounds_whatever_sizes_frees_come_with) {
  const auto counting = std::make_shared<statistics_resource_adaptor>(std::make_shared<cuda_memory_resource>(0));
  captured_stderr reports;
  counting->push_counters();
  for (const std::size_t wrong : wrong_sizes) {
    for (int again = 0; again < 9; ++again) counting->deallocate({}, counting->allocate({}, 1000), wrong);
  }
  for (const allocation_counters& seen : {counting->pop_counters(), counting->counters()}) {
    EXPECT_EQ(seen.count.current, 0);
    EXPECT_LT(seen.bytes.current, 0);
    EXPECT_GE(seen.bytes.peak, 1000);
  }
}

/// What the driver refuses to free is in use still. Without the fixture, which would find that it is leaked.
TEST(figures_over_the_driver, have_the_blocks_that_could_not_be_freed) {
  const std::map<std::string, const char*> calls = {{"cuda", "cuMemFree"},
                                                    {"managed", "cuMemFree"},
                                                    {"pinned", "cuMemFreeHost"},
                                                    {"async", "cuMemFreeAsync"},
                                                    {"system", "cuStreamSynchronize"}};
  static immortal<std::vector<void*>> leaked;  // or the leak sanitizer would find those of the system's memory
  captured_stderr reports;
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  for (const auto& [kind, call] : calls) {
    for (const std::size_t alignment : {default_alignment, 64 * KiB}) {
      SCOPED_TRACE(testing::Message() << kind << ", alignment " << alignment);
      const auto counting = std::make_shared<statistics_resource_adaptor>(make_resource(kind, 0));
      void* const block = counting->allocate(stream, 1000, alignment);
      cenote_sim_fail(call, 1, CUDA_ERROR_UNKNOWN);
      counting->deallocate(stream, block, 1000, alignment);
      leaked->push_back(block);
      EXPECT_EQ(counting->counters().bytes.current, 1000);
      EXPECT_EQ(counting->counters().count.current, 1);
    }
  }
}

TEST_F(figures, of_bins_are_not_changed_by_frees_of_wrong_sizes) {
  const auto bins = std::make_shared<binning_memory_resource>(make_resource("pool:initial=4MiB", 0), 8, 12);
  captured_stderr reports;
  void* const small = bins->allocate({}, 1000);
  void* const large = bins->allocate({}, 100000);
  bins->deallocate({}, large, 1000);  // to a bin that does not know it
  EXPECT_EQ(bins->state().in_use, 1024 + rounded(100000));
  bins->deallocate({}, large, 200000);
  EXPECT_EQ(bins->state().in_use, 1024u);
  bins->deallocate({}, small, 600);
  EXPECT_EQ(bins->state().in_use, 0u);
}

TEST_F(figures, of_a_free_that_are_wrong_are_reported_once_for_each_pool) {
  for (int nth = 0; nth < 2; ++nth) {
    const auto pool = make_resource("pool:initial=4MiB", 0);
    captured_stderr reports;
    for (const std::size_t bytes : {1000, 2000, 30000}) {
      const std::size_t asked = bytes + static_cast<std::size_t>(nth);
      pool->deallocate({}, pool->allocate({}, asked), asked);  // not of another size
      pool->deallocate({}, pool->allocate({}, asked), 5);
    }
    EXPECT_EQ(reports.text(), "cenote: a block of " + std::to_string(1000 + nth) +
                                  " bytes was freed as one of 5: the former are freed\n");
  }
}

}  // namespace
}  // namespace cenote::test
