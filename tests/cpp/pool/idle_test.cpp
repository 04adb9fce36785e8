// A pool gives back what it has not used for some time, and is sparing, where it is told to.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

using std::chrono::milliseconds;

class spare_memory : public simulated_device {
 protected:
  /// Whether it comes true before a minute has passed.
  static bool comes_true(const std::function<bool()>& wanted) {
    for (int tries = 0; tries < 6000; ++tries) {
      if (wanted()) return true;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return false;
  }

  std::shared_ptr<memory_resource> virtual_ = std::make_shared<virtual_memory_resource>(0);
};

TEST_F(spare_memory, that_was_not_used_for_the_idle_time_goes_back) {
  pool_memory_resource pool(virtual_, {}, {}, {.idle = milliseconds(40)});
  void* const kept = pool.allocate({}, 64 * MiB);
  pool.deallocate({}, pool.allocate({}, 256 * MiB), 256 * MiB);
  EXPECT_TRUE(comes_true([&] { return pool.pool_size() == 64 * MiB; })) << pool.pool_size();
  pool.deallocate({}, kept, 64 * MiB);
  EXPECT_TRUE(comes_true([&] { return pool.pool_size() == 0; })) << pool.pool_size();
  pool.check();
}

TEST_F(spare_memory, stays_while_it_is_used_within_the_idle_time) {
  pool_memory_resource pool(virtual_, {}, {}, {.idle = std::chrono::hours(1)});
  pool.deallocate({}, pool.allocate({}, 256 * MiB), 256 * MiB);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(pool.pool_size(), 256 * MiB);
}

TEST_F(spare_memory, stays_for_ever_where_no_idle_time_is_given) {
  pool_memory_resource pool(virtual_);
  pool.deallocate({}, pool.allocate({}, 256 * MiB), 256 * MiB);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(pool.pool_size(), 256 * MiB);
}

TEST_F(spare_memory, goes_back_once_its_work_is_done_though_nobody_calls_the_pool) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  pool_memory_resource pool(virtual_, {}, {}, {.idle = milliseconds(4)});
  void* const block = pool.allocate(stream.view(), 64 * MiB);
  for (int i = 0; i < 100; ++i) fill_async(block, 1, KiB, stream.view(), 0);  // each look lets some of them run
  pool.deallocate(stream.view(), block, 64 * MiB);
  EXPECT_TRUE(comes_true([&] { return pool.pool_size() == 0; })) << pool.pool_size();
  pool.check();
}

TEST_F(spare_memory, is_given_back_beside_threads_that_use_the_pool) {
  pool_memory_resource pool(virtual_, {}, {}, {.idle = milliseconds(4)});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const cuda_stream own(0, cuda_stream::kind::non_blocking);
      for (int i = 0; i < 400; ++i) {
        const std::size_t bytes = static_cast<std::size_t>(1 + (i * 7 + t) % 23) * MiB;
        void* const block = pool.allocate(own.view(), bytes);
        fill_async(block, t, KiB, own.view(), 0);
        pool.deallocate(own.view(), block, bytes);
      }
    });
  }
  for (auto& each : threads) each.join();
  synchronize_device(0);
  EXPECT_TRUE(comes_true([&] { return pool.pool_size() == 0; })) << pool.pool_size();
  pool.check();
}

TEST_F(spare_memory, of_a_forked_child_is_left_alone_and_its_pool_ends) {
  auto pool =
      std::make_unique<pool_memory_resource>(virtual_, std::nullopt, std::nullopt, pool_spare{.idle = milliseconds(4)});
  pool->deallocate({}, pool->allocate({}, 256 * MiB), 256 * MiB);
  std::this_thread::sleep_for(milliseconds(10));
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);  // or it would wait for a thread that it does not have
    pool.reset();
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(comes_true([&] { return pool->pool_size() == 0; })) << pool->pool_size();
}

TEST_F(spare_memory, is_less_in_a_tight_pool) {
  const auto held_by = [&](pool_spare spare) {
    pool_memory_resource pool(virtual_, {}, {}, spare);
    std::vector<void*> blocks;
    for (int i = 0; i < 1024; ++i) blocks.push_back(pool.allocate({}, 4 * MiB));
    for (int i = 0; i < 1024; i += 2) pool.deallocate({}, blocks[static_cast<std::size_t>(i)], 4 * MiB);
    void* const large = pool.allocate({}, 2 * GiB);  // in pieces: pages are moved, or new ones made up to the bound
    const std::size_t held = pool.pool_size();
    pool.deallocate({}, large, 2 * GiB);
    for (int i = 1; i < 1024; i += 2) pool.deallocate({}, blocks[static_cast<std::size_t>(i)], 4 * MiB);
    return held;
  };
  EXPECT_LE(held_by({.is_tight = true}), 4 * GiB + 4 * GiB / 33);
  EXPECT_LE(held_by({}), 4 * GiB + 4 * GiB / 10);
  EXPECT_LT(held_by({.is_tight = true}), held_by({}));
}

TEST_F(spare_memory, is_the_business_of_a_pool_over_virtual_memory_alone) {
  const auto cuda = std::make_shared<cuda_memory_resource>(0);
  EXPECT_THROW(pool_memory_resource(cuda, 0, {}, {.is_tight = true}), std::logic_error);
  EXPECT_THROW(pool_memory_resource(cuda, 0, {}, {.idle = milliseconds(1)}), std::logic_error);
  EXPECT_THROW(pool_memory_resource(virtual_, 0, {}, {.idle = milliseconds(0)}), std::logic_error);
}

}  // namespace
}  // namespace cenote::test
