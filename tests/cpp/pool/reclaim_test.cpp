// Threads that compete for the last blocks of a pool: a reclaim of one is in the way of no other.
#include <atomic>
#include <chrono>
#include <future>
#include <random>
#include <semaphore>
#include <thread>
#include <vector>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/pool_of_streams.hpp"

namespace cenote::test {
namespace {

using pool_of_equal_blocks = simulated_device;

/// Who may have a block gets one: as many as there are blocks have one or ask for one.
TEST_F(pool_of_equal_blocks, is_never_out_of_memory_while_one_is_free) {
  constexpr int threads = 4, blocks = 4;
  constexpr std::size_t block_bytes = 64 * KiB;  // too large for a front cache
  pool_memory_resource pool(std::make_shared<cuda_memory_resource>(0), blocks * block_bytes, blocks * block_bytes);
  std::counting_semaphore<> room(blocks);
  std::atomic<int> refused{0};
  const auto come_and_go = [&](unsigned seed) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    std::mt19937 random(seed);
    std::vector<void*> held;
    const auto free_one = [&] {
      pool.deallocate(own.view(), held.back(), block_bytes);
      held.pop_back();
      room.release();
    };
    for (int i = 0; i < 40'000; ++i) {
      if (random() % 2 == 0 && room.try_acquire()) {
        held.push_back(pool.try_allocate(own.view(), block_bytes));
        refused += held.back() == nullptr ? 1 : 0;
      } else if (!held.empty()) {
        free_one();
      }
    }
    while (!held.empty()) free_one();
  };
  {
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; ++t) all.emplace_back(come_and_go, t);
  }
  EXPECT_EQ(refused, 0);
}

/// A reclaim has claimed what A and C have freed, and records its event; C asks for memory in that moment.
TEST_F(pool_streams, nobody_takes_what_a_reclaim_has_claimed) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(c.view(), 16 * unit);
  for (int i = 0; i < 16; ++i) fill_async(low, 0xAA, 15 * unit, a(), 0);  // more than asking an event gets done
  for (int i = 0; i < 16; ++i) fill_async(high, 0xAA, 16 * unit, c.view(), 0);
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(c.view(), high, 16 * unit);
  std::future<void*> late;
  void* all = nullptr;
  {
    const before_call recording("cuCtxRecordEvent", [&] {
      late = std::async(std::launch::async, [&] { return pool_->try_allocate(c.view(), unit); });
      late.wait_for(std::chrono::milliseconds(100));  // long enough to take some of it
    });
    all = pool_->try_allocate(b(), block_bytes);
  }
  EXPECT_NE(all, nullptr) << "it was all free";
  EXPECT_EQ(late.get(), nullptr) << "and then nothing was";
  pool_->deallocate(b(), all, block_bytes);
}

/// What is freed while a reclaim waits for its event is claimed as well.
TEST_F(pool_streams, a_reclaim_has_what_is_freed_meanwhile) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  constexpr std::size_t middle_bytes = 11 * unit;
  void* const low = pool_->allocate(a(), 10 * unit);
  void* const middle = pool_->allocate(c.view(), middle_bytes);
  void* const high = pool_->allocate(a(), 10 * unit);
  pool_->deallocate(a(), low, 10 * unit);
  pool_->deallocate(a(), high, 10 * unit);
  void* all = nullptr;
  {
    const before_call recording("cuCtxRecordEvent", [&] {
      for (int i = 0; i < 16; ++i) fill_async(middle, 0xAA, middle_bytes, c.view(), 0);
      pool_->deallocate(c.view(), middle, middle_bytes);
    });
    all = pool_->try_allocate(b(), block_bytes);
  }
  ASSERT_NE(all, nullptr);
  fill_async(all, 0xBB, block_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(all, block_bytes, b()), 0xBB)) << "the work of C came last";
  pool_->deallocate(b(), all, block_bytes);
}

}  // namespace
}  // namespace cenote::test
