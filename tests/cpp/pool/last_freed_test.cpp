// The large block that was freed last: its size is served again at once, and nobody else sees that it was set aside.
#include "cenote/pool/last_freed.hpp"

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t large = 4 * MiB;  // far above what a front cache of these pools keeps
constexpr std::size_t maximum = 512 * MiB;

class pool_last_freed : public simulated_device {
 public:
  void SetUp() override {
    simulated_device::SetUp();
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0), 0, maximum);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    pool_->deallocate(a(), pool_->allocate(a(), 8 * large), 8 * large);  // grows, and meets the stream
  }

  void TearDown() override {
    pool_->check();
    a_.reset();
    b_.reset();
    {
      captured_stderr said;
      pool_.reset();
      EXPECT_EQ(said.text(), "") << "what is set aside is not in use";
    }
    simulated_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  /// A block that was allocated last, freed on its stream.
  void* set_one_aside() {
    void* const block = pool_->allocate(a(), large);
    pool_->deallocate(a(), block, large);
    return block;
  }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(pool_last_freed, serves_its_size_again_and_is_counted_as_of_its_own_stream) {
  void* const block = set_one_aside();
  const pool_counters before = pool_->counters();
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(pool_->allocate(a(), large), block);
    pool_->deallocate(a(), block, large);
  }
  EXPECT_EQ(pool_->counters().allocations, before.allocations + 10);
  EXPECT_EQ(pool_->counters().from_own_stream, before.from_own_stream + 10);
}

TEST_F(pool_last_freed, is_free_to_all_who_look) {
  void* const block = pool_->allocate(a(), large);
  EXPECT_EQ(pool_->state().in_use, large);
  pool_->deallocate(a(), block, large);
  EXPECT_EQ(pool_->state().in_use, 0u);
  EXPECT_EQ(pool_->state().largest_free, 8 * large);
  EXPECT_EQ(pool_->map().find("in use"), std::string::npos) << pool_->map();
}

TEST_F(pool_last_freed, is_joined_with_what_lies_beside_it_for_another_size) {
  void* const block = set_one_aside();
  EXPECT_EQ(pool_->allocate(a(), 8 * large), block);
  EXPECT_EQ(pool_->state().held, 8 * large) << "nothing was brought";
  pool_->deallocate(a(), block, 8 * large);
}

TEST_F(pool_last_freed, goes_back_to_the_device) {
  set_one_aside();
  synchronize_device(0);
  pool_->trim();
  EXPECT_EQ(pool_->state().held, 0u);
}

TEST_F(pool_last_freed, is_freed_once) {
  void* const block = set_one_aside();
  captured_stderr said;
  pool_->deallocate(a(), block, large);
  EXPECT_EQ(pool_->state().in_use, 0u);
  EXPECT_EQ(pool_->allocate(a(), large), block);
  EXPECT_NE(pool_->allocate(a(), large), block);
  pool_->deallocate(a(), block, large);
  pool_->deallocate(a(), static_cast<std::byte*>(block) + large, large);
}

TEST_F(pool_last_freed, is_none_while_there_are_several_streams) {
  const foreign_stream other;  // the second one; cenote's own need not be asked who they are
  const auto use = [&] { pool_->deallocate(other.view(), pool_->allocate(other.view(), large), large); };
  use();
  const call_count id_calls("cuStreamGetId");
  use();
  EXPECT_EQ(id_calls.value(), 2) << "the free goes to the heap, which asks whose it is";
}

/// Pairs until nobody has used any of 256 marks.
class pool_with_unused_marks : public pool_last_freed {
 public:
  void SetUp() override {
    pool_last_freed::SetUp();
    pool_->deallocate(b(), pool_->allocate(b(), large), large);
    use(300);
  }

  void use(int pairs) {
    for (int i = 0; i < pairs; ++i) pool_->deallocate(a(), pool_->allocate(a(), large), large);
  }
};

TEST_F(pool_with_unused_marks, sets_blocks_aside_though_there_are_several_streams) {
  const auto events = pool_->counters().events;
  const call_count records("cuEventRecord");
  use(100);
  EXPECT_EQ(records.value(), 0);
  EXPECT_EQ(pool_->counters().events, events);
}

TEST_F(pool_with_unused_marks, marks_every_thirty_second_free_all_the_same) {
  const auto events = pool_->counters().events;
  std::vector<void*> blocks;
  for (int i = 0; i < 2 * 32; ++i) blocks.push_back(pool_->allocate(a(), large));
  for (void* const each : blocks) pool_->deallocate(a(), each, large);
  EXPECT_GE(pool_->counters().events, events + 2);
}

TEST_F(pool_with_unused_marks, marks_large_blocks_again_once_a_stream_went_without) {
  pool_->deallocate(b(), pool_->allocate(b(), maximum), maximum);  // no mark covers what was set aside
  const auto events = pool_->counters().events;
  use(10);
  EXPECT_GE(pool_->counters().events, events + 9);
}

TEST_F(pool_last_freed, is_none_while_the_pool_is_paused) {
  void* const kept = pool_->allocate(a(), large);
  void* const block = set_one_aside();
  pool_->pause("nothing");
  EXPECT_THROW(static_cast<void>(pool_->allocate(a(), large)), std::runtime_error);
  pool_->deallocate(a(), kept, large);
  EXPECT_THROW(static_cast<void>(pool_->allocate(a(), large)), std::runtime_error);
  pool_->resume();
  EXPECT_EQ(pool_->state().in_use, 0u);
  for (int i = 0; i < 2; ++i) pool_->deallocate(a(), pool_->allocate(a(), large), large);
  EXPECT_NE(block, nullptr);
}

TEST_F(pool_last_freed, is_of_one_thread_at_a_time) {
  constexpr int threads = 4;
  std::vector<std::atomic<bool>> taken(64);  // by address
  std::byte* const base = static_cast<std::byte*>(pool_->allocate(a(), 8 * large));
  pool_->deallocate(a(), base, 8 * large);
  std::atomic<int> wrong{0};
  const auto work = [&](unsigned seed) {
    for (int i = 0; i < 3'000; ++i) {
      seed = seed * 1'103'515'245 + 12'345;
      const std::size_t bytes = (1 + seed / 65'536 % 2) * large / 4;
      auto* const block = static_cast<std::byte*>(pool_->allocate(a(), bytes));
      const auto first = static_cast<std::size_t>(block - base) / (large / 4);
      for (std::size_t k = 0; k < bytes / (large / 4); ++k) wrong += taken.at(first + k).exchange(true) ? 1 : 0;
      for (std::size_t k = 0; k < bytes / (large / 4); ++k) taken.at(first + k) = false;
      pool_->deallocate(a(), block, bytes);
    }
  };
  std::vector<std::thread> all;
  for (unsigned i = 0; i < threads; ++i) all.emplace_back(work, i);
  for (auto& each : all) each.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(pool_->state().in_use, 0u);
}

}  // namespace
}  // namespace cenote::test
