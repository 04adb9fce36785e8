// What becomes of a chunk that a pool grows by, and of what the upstream says when it has none.
#include <atomic>
#include <chrono>
#include <future>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class growing_pool : public simulated_device {
 public:
  static constexpr std::size_t chunk_bytes = 2 * MiB;

  void SetUp() override {
    simulated_device::SetUp();
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    a_.reset();
    b_.reset();
    simulated_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  const std::shared_ptr<memory_resource> cuda_ = std::make_shared<cuda_memory_resource>(0);
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(growing_pool, grows_once_for_threads_that_run_short_together) {
  const auto upstream = std::make_shared<program_resource>(cuda_);
  pool_memory_resource pool(upstream, 0);
  std::atomic<int> growths{0};
  std::future<void*> second;
  upstream->has_memory = [&] {
    if (++growths == 1) {
      second = std::async(std::launch::async, [&] { return pool.allocate({}, chunk_bytes / 2); });
      second.wait_for(std::chrono::milliseconds(100));  // long enough to ask the upstream as well
    }
    return true;
  };
  void* const first_block = pool.allocate({}, chunk_bytes / 2);
  void* const second_block = second.get();
  EXPECT_EQ(growths, 1);
  pool.deallocate({}, first_block, chunk_bytes / 2);
  pool.deallocate({}, second_block, chunk_bytes / 2);
}

TEST_F(growing_pool, says_what_its_upstream_said_where_that_had_no_memory) {
  const auto upstream = std::make_shared<program_resource>(cuda_);
  pool_memory_resource pool(upstream, 0);
  upstream->has_memory = []() -> bool { throw out_of_memory("the program's own budget", 77, {}); };
  try {
    pool.allocate({}, chunk_bytes);
    FAIL() << "there was memory";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.requested(), 77u);
    EXPECT_NE(std::string(error.what()).find("the program's own budget"), std::string::npos) << error.what();
  }
}

TEST_F(growing_pool, takes_small_requests_from_its_first_memory) {
  pool_memory_resource pool(cuda_, 1 * GiB);
  void* const small = pool.allocate(a(), 10'000);
  EXPECT_EQ(pool.pool_size(), 1 * GiB);
  pool.deallocate(a(), small, 10'000);
}

TEST_F(growing_pool, shares_a_chunk_that_any_stream_may_use) {
  pool_memory_resource pool(cuda_, 0);
  void* const of_a = pool.allocate(a(), chunk_bytes / 2);
  void* const of_b = pool.allocate(b(), chunk_bytes / 2);
  EXPECT_EQ(pool.counters().upstream_allocations, 1u);
  EXPECT_EQ(pool.counters().from_ready, 1u);
  EXPECT_EQ(pool.counters().waits, 0u);
  pool.deallocate(a(), of_a, chunk_bytes / 2);
  pool.deallocate(b(), of_b, chunk_bytes / 2);
}

/// An upstream that is ordered by streams may give what the work of another one still uses: only after the stream that
/// asked, and so only to that one.
TEST_F(growing_pool, keeps_a_chunk_to_the_stream_that_its_upstream_gave_it_to) {
  const auto upstream = std::make_shared<pool_memory_resource>(cuda_, 2 * chunk_bytes, 2 * chunk_bytes);
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  pool_memory_resource pool(upstream, 0);
  void* const whole = upstream->allocate(c.view(), 2 * chunk_bytes);
  for (int i = 0; i < 16; ++i) fill_async(whole, 0xAA, 2 * chunk_bytes, c.view(), 0);
  upstream->deallocate(c.view(), whole, 2 * chunk_bytes);
  void* const of_a = pool.allocate(a(), chunk_bytes / 2);
  void* const of_b = pool.allocate(b(), chunk_bytes / 2);
  fill_async(of_b, 0xBB, chunk_bytes / 2, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(of_b, chunk_bytes / 2, b()), 0xBB)) << "the work of C came last";
  pool.deallocate(a(), of_a, chunk_bytes / 2);
  pool.deallocate(b(), of_b, chunk_bytes / 2);
}

TEST_F(growing_pool, has_front_caches_as_soon_as_it_has_memory) {
  pool_memory_resource pool(cuda_, 0);
  constexpr std::size_t small = 256;
  for (int i = 0; i < 4; ++i) pool.deallocate(a(), pool.allocate(a(), small), small);
  EXPECT_GE(pool.counters().from_front_cache, 1u);
}

TEST_F(growing_pool, has_smaller_front_caches_once_it_has_given_memory_back) {
  pool_memory_resource pool(cuda_, chunk_bytes);
  constexpr std::size_t cached_while_large = 64 * KiB;  // an eighth of a sixty-fourth of 32 MiB
  void* const kept = pool.allocate(a(), 256);           // keeps the first chunk
  const auto pairs_from_front_caches = [&] {
    const std::uint64_t before = pool.counters().from_front_cache;
    for (int i = 0; i < 4; ++i) pool.deallocate(a(), pool.allocate(a(), cached_while_large), cached_while_large);
    return pool.counters().from_front_cache - before;
  };
  pool.deallocate(a(), pool.allocate(a(), 64 * MiB), 64 * MiB);
  EXPECT_GE(pairs_from_front_caches(), 1u);
  synchronize(a(), 0);
  EXPECT_EQ(pool.trim(), 64 * MiB);
  EXPECT_EQ(pairs_from_front_caches(), 0u);
  pool.deallocate(a(), kept, 256);
}

}  // namespace
}  // namespace cenote::test
