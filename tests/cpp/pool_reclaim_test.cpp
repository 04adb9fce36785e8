// Threads that compete for the last blocks of a pool: a reclaim of one is in the way of no other.
#include <atomic>
#include <random>
#include <semaphore>
#include <thread>
#include <vector>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "simulated.hpp"

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

}  // namespace
}  // namespace cenote::test
