// Regions and pauses of a whole program: what lies where, what is paused together, and what fails together.
#include "cenote/surface/pause.hpp"

#include <stdexcept>
#include <thread>
#include <vector>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "cenote/surface/region.hpp"
#include "support/clients.hpp"

namespace cenote::test {
namespace {

class paused_programs : public clients {
 protected:
  void SetUp() override {
    for (const int device : {0, 1}) {  // regions are for ever
      static_cast<void>(get_region("weights", device));
      static_cast<void>(get_region("cache", device));
    }
    clients::SetUp();
  }

  void TearDown() override {
    reset_resources();
    for (const std::string& name : region_names()) {
      for (const auto& each : region_resources(name)) each->trim(0, true);
    }
    keep_pinned_at_most(0);
    clients::TearDown();
  }

  static std::size_t held(const char* region) {
    std::size_t bytes = 0;
    for (const auto& each : region_resources(region)) bytes += each->state().held.value();
    return bytes;
  }
};

TEST_F(paused_programs, lay_the_blocks_of_a_region_into_its_own_pool) {
  void* block = nullptr;
  {
    const region_scope weights("weights", 0);
    EXPECT_EQ(get_per_device_resource(0), get_region("weights", 0));
    block = client_allocate(client_, 0, MiB, {});
    const region_scope cache("cache", 0);
    EXPECT_EQ(get_per_device_resource(0), get_region("cache", 0));
    EXPECT_FALSE(weights.is_innermost());
    std::thread([] { EXPECT_NE(get_per_device_resource(0), get_region("cache", 0)); }).join();
  }
  EXPECT_EQ(held("weights"), 2 * MiB);
  EXPECT_EQ(held("cache"), 0u);
  pause_region("weights");
  EXPECT_EQ(held("weights"), 0u);
  resume_region("weights");
  client_deallocate(block, {});
}

TEST_F(paused_programs, have_fewer_and_larger_pages_in_a_region_also_near_a_limit_no_more_than_it_allows) {
  const auto pages_of = [](pool_memory_resource& pool, std::size_t bytes) {
    const auto before = pool.counters().upstream_allocations;
    void* const block = pool.allocate({}, bytes);
    pool.deallocate({}, block, bytes);
    return pool.counters().upstream_allocations - before;
  };
  auto& region = dynamic_cast<pool_memory_resource&>(*get_region("weights", 0));
  pool_memory_resource plain(std::make_shared<virtual_memory_resource>(0));
  EXPECT_EQ(pages_of(plain, 2 * GiB), 1024u);
  plain.trim(0, true);
  EXPECT_EQ(pages_of(region, 2 * GiB), 256u);
  region.trim(0, true);
  pool_memory_resource limited(std::make_shared<virtual_memory_resource>(0), std::nullopt, 128 * MiB);
  limited.expect_pauses();
  EXPECT_EQ(pages_of(limited, 128 * MiB), 64u);
  pool_memory_resource over_chunks(std::make_shared<cuda_memory_resource>(0));
  EXPECT_THROW(over_chunks.expect_pauses(), std::logic_error);
}

TEST_F(paused_programs, refuse_regions_that_are_wrong) {
  EXPECT_THROW(get_region("", 0), std::invalid_argument);
  EXPECT_THROW(get_region("another", 0, "cuda"), std::invalid_argument);
  EXPECT_THROW(get_region("another", 0, "pool | cuda"), std::invalid_argument);
  EXPECT_THROW(get_region("weights", 0, "pool:max=1GiB | virtual"), std::invalid_argument);
  EXPECT_EQ(get_region("weights", 0, default_region_specification), get_region("weights", 0));
  EXPECT_THROW(pause_region("another"), std::invalid_argument);
  EXPECT_THROW(resume_region("another"), std::invalid_argument);
  EXPECT_EQ(region_names(), (std::vector<std::string>{"weights", "cache"}));
}

TEST_F(paused_programs, pause_the_pool_in_a_stack) {
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0));
  void* const block = pool->allocate({}, MiB);
  EXPECT_EQ(pause(pool), 2 * MiB);
  EXPECT_TRUE(is_paused(pool));
  EXPECT_EQ(paused_bytes(pool), 2 * MiB);
  EXPECT_EQ(resume(pool), 2 * MiB);
  EXPECT_FALSE(is_paused(pool));
  pool->deallocate({}, block, MiB);
  EXPECT_THROW(pause(std::make_shared<cuda_memory_resource>(0)), std::invalid_argument);
  EXPECT_THROW(pause(nullptr), std::invalid_argument);
}

TEST_F(paused_programs, refuse_a_pool_under_what_would_hand_out_its_memory) {
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0));
  void* const block = pool->allocate({}, MiB);
  const std::shared_ptr<memory_resource> keepers[] = {
      std::make_shared<pool_memory_resource>(pool, 0), std::make_shared<arena_memory_resource>(pool, 4 * MiB),
      std::make_shared<fixed_size_memory_resource>(pool), std::make_shared<binning_memory_resource>(pool, 10, 20)};
  for (const auto& each : keepers) {
    const auto outermost = std::make_shared<statistics_resource_adaptor>(each);
    EXPECT_THROW(pause(outermost), std::invalid_argument) << each->kind();
    set_per_device_resource(0, outermost);
    pause_all();
    EXPECT_FALSE(is_paused(pool)) << each->kind();
    resume_all();
  }
  EXPECT_GT(pause(std::make_shared<statistics_resource_adaptor>(pool)), 0u);
  resume(pool);
  reset_resources();
  pool->deallocate({}, block, MiB);
}

TEST_F(paused_programs, pause_everything_and_leave_what_is_paused) {
  const auto current = std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0));
  set_per_device_resource(0, current);
  void* const block = client_allocate(client_, 0, MiB, {});
  EXPECT_THROW(resume_all(), std::runtime_error);
  pause_region("cache");
  const region_scope elsewhere("weights", 0);  // the process's is meant all the same
  EXPECT_EQ(pause_all(), 2 * MiB);
  EXPECT_TRUE(is_paused(current));
  EXPECT_TRUE(is_paused(get_region("weights", 1)));
  EXPECT_THROW(pause_all(), std::runtime_error);
  EXPECT_EQ(resume_all(), 2 * MiB);
  EXPECT_FALSE(is_paused(get_region("cache", 0)));
  client_deallocate(block, {});
}

TEST_F(paused_programs, pause_all_devices_of_a_region_or_none) {
  const auto second = get_region("weights", 1);
  void* const block = second->allocate({}, MiB);
  std::dynamic_pointer_cast<pool_memory_resource>(second)->pin(block, pin_kind::exported);
  EXPECT_THROW(pause_region("weights"), std::runtime_error);
  EXPECT_FALSE(is_paused(get_region("weights", 0)));
  std::dynamic_pointer_cast<pool_memory_resource>(second)->unpin(block, pin_kind::exported);
  second->deallocate({}, block, MiB);
}

TEST_F(paused_programs, keep_contents_where_a_pause_that_keeps_none_fails_on_another_device) {
  const auto first = get_region("weights", 0);
  const auto second = std::dynamic_pointer_cast<pool_memory_resource>(get_region("weights", 1));
  void* const one = first->allocate({}, 5 * MiB);
  void* const other = second->allocate({}, MiB);
  second->pin(other, pin_kind::registered);
  for (const char* const keep : {"nothing", "fill:9", "host"}) {
    fill_async(one, 7, 5 * MiB, {}, 0);
    EXPECT_THROW(pause_region("weights", keep), std::runtime_error) << keep;
    EXPECT_FALSE(is_paused(first)) << keep;
    EXPECT_TRUE(all_are(read(one, 5 * MiB, {}), 7)) << keep;
  }
  second->unpin(other, pin_kind::registered);
  EXPECT_EQ(pause_region("weights", "fill:9"), 8 * MiB);
  EXPECT_EQ(resume_region("weights"), 8 * MiB);
  EXPECT_TRUE(all_are(read(one, 5 * MiB, {}), 9));
  first->deallocate({}, one, 5 * MiB);
  second->deallocate({}, other, MiB);
}

TEST_F(paused_programs, pause_several_regions_each_with_its_own_keep_or_none_of_them) {
  const auto weights = get_region("weights", 0);
  const auto cache = std::dynamic_pointer_cast<pool_memory_resource>(get_region("cache", 0));
  void* const one = weights->allocate({}, 5 * MiB);
  void* const other = cache->allocate({}, MiB);
  fill_async(one, 7, 5 * MiB, {}, 0);
  fill_async(other, 8, MiB, {}, 0);
  const std::vector<region_pause> plan{{"weights", "nothing"}, {"cache", "host"}, {"weights", "host"}};
  cache->pin(other, pin_kind::exported);
  EXPECT_THROW(pause_regions(plan), std::runtime_error);
  EXPECT_FALSE(is_paused(weights) || is_paused(cache));
  cache->unpin(other, pin_kind::exported);
  EXPECT_THROW(pause_regions({{"cache", "host"}, {"weights", "elsewhere"}}), std::invalid_argument);
  EXPECT_THROW(pause_regions({{"cache", "host"}, {"another", "host"}}), std::invalid_argument);
  EXPECT_FALSE(is_paused(weights) || is_paused(cache));
  EXPECT_TRUE(all_are(read(one, 5 * MiB, {}), 7));
  EXPECT_TRUE(all_are(read(other, MiB, {}), 8));
  EXPECT_EQ(pause_regions(plan), 8 * MiB);
  EXPECT_THROW(pause_regions(plan), std::runtime_error);
  EXPECT_EQ(kept_pinned_bytes(), 0u);  // all of it is in use: the cache's
  resume_region("weights");
  resume_region("cache");
  EXPECT_TRUE(all_are(read(other, MiB, {}), 8));
  weights->deallocate({}, one, 5 * MiB);
  cache->deallocate({}, other, MiB);
}

TEST_F(paused_programs, find_all_devices_of_a_region_paused_or_none_whoever_else_pauses_and_resumes_it) {
  const auto first = get_region("weights", 0);
  const auto second = get_region("weights", 1);
  void* const one = first->allocate({}, MiB);
  void* const other = second->allocate({}, MiB);
  const auto attempt = [](auto&& action) {
    try {
      action();
    } catch (const std::runtime_error&) {
    }
  };
  for (int round = 0; round < 100; ++round) {
    std::thread pausing([&] { attempt([] { pause_region("weights"); }); });
    std::thread pausing_all([&] { attempt([] { pause_all(); }); });
    attempt([] { resume_region("weights"); });
    pausing.join();
    pausing_all.join();
    EXPECT_EQ(is_paused(first), is_paused(second));
    attempt([] { resume_all(); });
    EXPECT_FALSE(is_paused(first) || is_paused(second));
  }
  first->deallocate({}, one, MiB);
  second->deallocate({}, other, MiB);
}

TEST_F(paused_programs, resume_a_region_that_was_paused_in_part) {
  const auto first = get_region("weights", 0);
  void* const block = first->allocate({}, MiB);
  pause(first);
  EXPECT_EQ(pause_region("weights"), 0u) << "the pool of the other device has no pages";
  EXPECT_THROW(pause_region("weights"), std::runtime_error);
  resume(get_region("weights", 1));
  EXPECT_EQ(resume_region("weights"), 2 * MiB);
  EXPECT_THROW(resume_region("weights"), std::runtime_error);
  first->deallocate({}, block, MiB);
}

TEST_F(paused_programs, do_the_same_from_c) {
  const cenote_api* const c = cenote_get_api(CENOTE_ABI_VERSION);
  EXPECT_EQ(c->end_region(), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(c->begin_region(0, nullptr), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(c->begin_region(99, "weights"), CENOTE_OUT_OF_RANGE);
  ASSERT_EQ(c->begin_region(0, "weights"), CENOTE_OK);
  ASSERT_EQ(c->begin_region(0, "cache"), CENOTE_OK);
  ASSERT_EQ(c->end_region(), CENOTE_OK);
  void* const block = c->allocate(client_, 0, MiB, nullptr);
  ASSERT_EQ(c->end_region(), CENOTE_OK);
  EXPECT_EQ(held("weights"), 2 * MiB);
  set_per_device_resource(0, std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0)));
  EXPECT_EQ(c->pool_bytes(0), static_cast<int64_t>(2 * MiB)) << "of regions, too";
  EXPECT_EQ(c->pause("weights", nullptr), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(c->pause("weights", "somewhere"), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(c->pause("another", "host"), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(c->pause("weights", "host"), static_cast<int64_t>(2 * MiB));
  EXPECT_EQ(c->pause("weights", "host"), CENOTE_FAILURE);
  EXPECT_EQ(c->pool_bytes(0), 0);
  ASSERT_EQ(c->begin_region(0, "weights"), CENOTE_OK);
  EXPECT_EQ(c->allocate(client_, 0, MiB, nullptr), nullptr);
  EXPECT_EQ(c->last_status(), CENOTE_FAILURE);
  ASSERT_EQ(c->end_region(), CENOTE_OK);
  EXPECT_EQ(c->resume("weights"), static_cast<int64_t>(2 * MiB));
  EXPECT_EQ(c->resume("weights"), CENOTE_FAILURE);
  EXPECT_EQ(c->deallocate(block, nullptr), CENOTE_OK);
  EXPECT_EQ(c->trim_to(0, 0, 1), static_cast<int64_t>(2 * MiB)) << "of regions, too";
}

}  // namespace
}  // namespace cenote::test
