// The pool's front caches: blocks that a thread has just freed on a stream. They cost nothing to have again, and they
// are nobody's loss: not another stream's, not another thread's, not the device's.
#include "cenote/pool/front_caches.hpp"

#include <atomic>
#include <cstdlib>
#include <set>
#include <thread>

#include "cenote/ground/asymmetric_fence.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"
#include "support/without_membarrier.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t pool_bytes = 4 * MiB;
constexpr std::size_t small = 4 * KiB;  // below an eighth of a sixty-fourth of the pool: goes to a cache

class pool_front_cache : public simulated_device {
 public:
  void SetUp() override {
    simulated_device::SetUp();
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), pool_bytes, pool_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    open_caches(a());
  }

  void TearDown() override {
    pool_->check();
    a_.reset();
    b_.reset();
    {
      captured_stderr said;
      pool_.reset();
      EXPECT_EQ(said.text(), "") << "what lies in a cache is not in use";
    }
    simulated_device::TearDown();
  }

  /// The calling thread has a cache for a stream once it has freed on it.
  void open_caches(stream_ref stream) { pool_->deallocate(stream, pool_->allocate(stream, small), small); }

  std::vector<void*> take_all(stream_ref stream) {
    std::vector<void*> blocks;
    while (void* const block = pool_->try_allocate(stream, small)) blocks.push_back(block);
    return blocks;
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }
  std::uint64_t hits() const { return pool_->counters().from_front_cache; }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(pool_front_cache, keeps_what_a_thread_frees_that_has_never_allocated_on_the_stream) {
  std::vector<void*> blocks(3);
  std::thread([&] {
    for (void*& block : blocks) block = pool_->allocate(b(), small);
  }).join();
  for (void* const block : blocks) pool_->deallocate(b(), block, small);
  const auto before = hits();
  void* const again = pool_->allocate(b(), small);
  EXPECT_EQ(hits(), before + 1);
  EXPECT_EQ(again, blocks.back());
  pool_->deallocate(b(), again, small);
}

/// A capture has an id of its own kind, whose number may be that of a stream.
TEST(front_caches, are_not_for_captures) {
  block_heap heap;
  pool::front_caches caches(heap);
  caches.set_budget(1 * MiB);
  const owner_index owner = heap.create_owner();
  heap.add_chunk({reinterpret_cast<std::byte*>(1 * MiB), 1 * MiB}, owner, 0);
  void* const block = heap.take(heap.find(owner, small, 256), small, 256, {}, 0);
  const stream_id of_a_stream{7};
  const stream_id of_a_capture{7, reinterpret_cast<CUstream_st*>(0x1000)};
  block_index spilled = no_block;
  caches.open(of_a_capture);
  EXPECT_FALSE(caches.give(of_a_stream, block, &spilled));
  caches.open(of_a_stream);
  EXPECT_TRUE(caches.give(of_a_stream, block, &spilled));
  EXPECT_FALSE(caches.take(of_a_stream, 2 * small));
  EXPECT_EQ(caches.take(of_a_stream, small), block);
}

TEST_F(pool_front_cache, serves_the_thread_and_stream_that_freed_without_a_driver_call) {
  void* const block = pool_->allocate({}, small);
  pool_->deallocate({}, block, small);  // opens the cache
  pool_->deallocate({}, pool_->allocate({}, small), small);
  const auto before = pool_->counters();
  const call_count all_calls(nullptr);
  for (int i = 0; i < 100; ++i) {
    void* const again = pool_->allocate({}, small - 100);
    ASSERT_EQ(again, block);
    pool_->deallocate({}, again, small - 100);
  }
  const auto after = pool_->counters();
  EXPECT_EQ(all_calls.value(), 0);
  EXPECT_EQ(after.from_front_cache - before.from_front_cache, 100u);
  EXPECT_EQ(after.allocations - before.allocations, 100u);
}

TEST_F(pool_front_cache, serves_no_other_stream_before_the_work_on_the_block_is_done) {
  std::vector<void*> blocks = take_all(a());
  void* const block = blocks.back();
  void* const witness = device_allocate(0, small);
  fill_async(block, 0xAA, small, a(), 0);
  copy_async(witness, block, small, a(), 0);
  pool_->deallocate(a(), block, small);
  void* const again = pool_->allocate(b(), small);
  ASSERT_EQ(again, block) << "the only free one";
  fill_async(again, 0xBB, small, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(witness, small, a()), 0xAA));
  EXPECT_TRUE(all_are(read(again, small, b()), 0xBB));
  device_free(0, witness);
  for (void* const each : blocks) pool_->deallocate(a(), each, small);
}

TEST_F(pool_front_cache, is_emptied_for_another_thread_of_the_stream_before_the_pool_runs_out) {
  std::vector<void*> blocks = take_all(a());
  const std::size_t all = blocks.size();
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
  std::thread([&] {
    const auto reclaimed = pool_->counters().from_reclaim;
    blocks = take_all(a());
    EXPECT_EQ(blocks.size(), all);
    EXPECT_EQ(pool_->counters().from_reclaim, reclaimed) << "it is the same stream: nothing to wait for";
  }).join();
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
}

TEST_F(pool_front_cache, is_emptied_for_a_block_of_another_size) {
  for (const stream_ref stream : {a(), b()}) {
    std::vector<void*> blocks = take_all(stream);
    for (void* const block : blocks) pool_->deallocate(stream, block, small);
    void* const whole = pool_->try_allocate(stream, pool_bytes);
    EXPECT_NE(whole, nullptr) << "all blocks are one again";
    pool_->deallocate(stream, whole, pool_bytes);
  }
}

TEST_F(pool_front_cache, is_emptied_by_trim_whoever_filled_it) {
  const cuda_stream other(0, cuda_stream::kind::non_blocking);
  std::thread([&] {
    open_caches(other.view());
    pool_->deallocate(other.view(), pool_->allocate(other.view(), small), small);
  }).join();
  pool_->deallocate(a(), pool_->allocate(a(), small), small);
  synchronize_device(0);
  EXPECT_EQ(pool_->trim(), pool_bytes);
  EXPECT_EQ(pool_->pool_size(), 0u);
}

TEST_F(pool_front_cache, holds_nothing_that_counts_as_in_use) {
  void* const block = pool_->allocate(a(), small);
  EXPECT_EQ(pool_->state().in_use, small);
  pool_->deallocate(a(), block, small);
  EXPECT_EQ(pool_->state().in_use, 0u);
  EXPECT_EQ(pool_->map().find("in use"), std::string::npos) << pool_->map();
}

TEST_F(pool_front_cache, sees_a_second_free_and_a_pointer_into_a_block) {
  void* const block = pool_->allocate(a(), small);
  captured_stderr said;
  pool_->deallocate(a(), static_cast<std::byte*>(block) + 256, small);
  EXPECT_EQ(pool_->state().in_use, small);
  pool_->deallocate(a(), block, small);
  pool_->deallocate(a(), block, small);
  EXPECT_EQ(pool_->state().in_use, 0u);
  EXPECT_EQ(pool_->allocate(a(), small), block);
  EXPECT_NE(pool_->allocate(a(), small), block) << "it was given out twice";
  pool_->check();
  EXPECT_NE(said.text().find("freed already"), std::string::npos);
  pool_->trim();
  const auto in_use = pool_->map();
  for (std::size_t at = 0; (at = in_use.find("in use", at)) != std::string::npos; ++at) {
    const std::size_t line = in_use.rfind('\n', at) + 1;
    pool_->deallocate(a(), reinterpret_cast<void*>(std::stoull(in_use.substr(line), nullptr, 16)), small);
  }
}

TEST_F(pool_front_cache, goes_by_the_size_of_the_block_whatever_size_is_said_when_it_is_freed) {
  void* const block = pool_->allocate(a(), small);
  pool_->deallocate(a(), block, 2 * small);
  void* const larger = pool_->allocate(a(), 2 * small);
  EXPECT_NE(larger, block);
  EXPECT_EQ(pool_->allocate(a(), small), block);
  pool_->deallocate(a(), block, small);
  pool_->deallocate(a(), larger, 2 * small);
}

TEST_F(pool_front_cache, gives_no_block_that_is_aligned_by_luck_only) {
  void* const block = pool_->allocate(a(), small);
  pool_->deallocate(a(), block, small);
  const auto before = hits();
  void* const aligned = pool_->allocate(a(), small, 64 * KiB);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned) % (64 * KiB), 0u);
  EXPECT_EQ(hits(), before);
  pool_->deallocate(a(), aligned, small, 64 * KiB);
}

TEST(pool_front_cache_death_test, has_the_process_registered_when_the_pool_is_made_and_not_at_its_first_allocation) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";  // in a process that has no pool yet
  const auto run = [] {
    pool_memory_resource pool(std::make_shared<cuda_memory_resource>(0), pool_bytes, pool_bytes);
    if (!forbid_membarrier()) std::_Exit(2);
    pool.deallocate({}, pool.allocate({}, small), small);
    std::_Exit(has_asymmetric_fence() ? 0 : 1);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

template <class Stream>
class pool_front_cache_of_a_stream : public pool_front_cache {};

using kinds_of_streams = testing::Types<stream_of_ours, foreign_stream>;
TYPED_TEST_SUITE(pool_front_cache_of_a_stream, kinds_of_streams);

TYPED_TEST(pool_front_cache_of_a_stream, that_is_gone_serves_nobody_with_its_handle) {
  const auto& pool_ = this->pool_;
  const auto hits = [this] { return this->hits(); };
  stream_ref handle;
  {
    const TypeParam gone;
    handle = gone.view();
    this->open_caches(handle);
    void* const block = pool_->allocate(handle, small);
    fill_async(block, 0xAA, small, handle, 0);
    pool_->deallocate(handle, block, small);
  }
  const TypeParam fresh;
  ASSERT_EQ(fresh.view(), handle) << "the driver uses handle values again";
  const auto before = hits();
  void* const block = pool_->allocate(handle, small);
  EXPECT_EQ(hits(), before);
  pool_->deallocate(handle, block, small);
}

TEST_F(pool_front_cache, keeps_blocks_of_a_capture_out_on_both_ways) {
  const cuda_stream captured(0);
  open_caches(captured.view());
  void* const from_before = pool_->allocate(captured.view(), small);
  ASSERT_EQ(cuStreamBeginCapture(captured.view().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  const auto before = hits();
  void* const of_the_graph = pool_->allocate(captured.view(), small);
  pool_->deallocate(captured.view(), from_before, small);  // the graph may use it
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamEndCapture(captured.view().value(), &graph), CUDA_SUCCESS);
  pool_->deallocate(captured.view(), of_the_graph, small);  // retired: the graph uses it at every launch
  EXPECT_EQ(hits(), before);
  const std::vector<void*> rest = take_all(captured.view());
  for (void* const block : rest) {
    EXPECT_NE(block, from_before);
    EXPECT_NE(block, of_the_graph);
  }
  for (void* const block : rest) pool_->deallocate(captured.view(), block, small);
  cuGraphDestroy(graph);
}

TEST_F(pool_front_cache, of_a_thread_that_ended_serves_the_next) {
  const auto live = [&] {
    open_caches(b());
    const auto before = hits();
    void* const block = pool_->allocate(b(), small);
    pool_->deallocate(b(), block, small);
    return std::pair{block, hits() - before};
  };
  std::pair<void*, std::uint64_t> first;
  std::pair<void*, std::uint64_t> second;
  std::thread([&] { first = live(); }).join();
  std::thread([&] { second = live(); }).join();
  EXPECT_EQ(second.second, 1u);
  std::set<void*> cached;
  std::thread([&] {
    open_caches(b());
    const auto before = hits();
    while (hits() - before == cached.size()) cached.insert(pool_->allocate(b(), small));
    for (void* const block : cached) pool_->deallocate(b(), block, small);
  }).join();
  EXPECT_TRUE(cached.contains(first.first));
  EXPECT_TRUE(cached.contains(second.first));
}

TEST_F(pool_front_cache, of_a_stream_that_was_forgotten_is_there_again_when_it_comes_again) {
  std::vector<void*> blocks = take_all(a());
  EXPECT_EQ(pool_->try_allocate(b(), small), nullptr);  // in search of memory the pool forgets A, which has none
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
  blocks.clear();
  const auto before = hits();
  for (int i = 0; i < 10; ++i) pool_->deallocate(a(), pool_->allocate(a(), small), small);
  EXPECT_GE(hits() - before, 9u);
}

TEST_F(pool_front_cache, asks_nothing_at_once_for_a_block_that_it_would_not_keep) {
  const foreign_stream stream;
  void* const large = pool_->allocate(stream.view(), 1 * MiB);
  const call_count all_calls(nullptr);
  EXPECT_EQ(pool_->allocate_at_once(stream.view(), 1 * MiB), nullptr);
  EXPECT_FALSE(pool_->deallocate_at_once(stream.view(), large, 1 * MiB));
  EXPECT_EQ(all_calls.value(), 0);
  pool_->deallocate(stream.view(), large, 1 * MiB);
}

TEST_F(pool_front_cache, brings_several_blocks_of_a_size_that_is_asked_for_again_and_again) {
  std::set<void*> blocks;
  const auto before = pool_->counters();
  for (int i = 0; i < 100; ++i) blocks.insert(pool_->allocate(b(), 512));
  const auto after = pool_->counters();
  EXPECT_EQ(blocks.size(), 100u);
  EXPECT_EQ(after.allocations - before.allocations, 100u);
  EXPECT_GT(after.from_front_cache - before.from_front_cache, 80u);
  EXPECT_EQ(pool_->state().in_use, 100 * 512u) << "what was brought ahead is in nobody's use";
  for (void* const block : blocks) pool_->deallocate(b(), block, 512);
  std::vector<void*> everything;
  while (void* const block = pool_->try_allocate(a(), 512)) everything.push_back(block);
  EXPECT_EQ(everything.size(), pool_bytes / 512) << "and nobody goes without it";
  for (void* const block : everything) pool_->deallocate(a(), block, 512);
}

/// For a sanitizer: a cache looks blocks up while the table that it reads is outgrown by another thread's blocks.
TEST_F(pool_front_cache, serves_one_thread_while_others_fill_the_pool) {
  std::atomic<bool> is_over{false};
  std::atomic<unsigned> rounds{0};
  std::thread at_ease([&] {
    open_caches(b());
    for (; !is_over; rounds.fetch_add(1, std::memory_order_relaxed)) {
      pool_->deallocate(b(), pool_->allocate(b(), small), small);
    }
  });
  std::vector<void*> blocks;
  for (int i = 0; i < 4'000; ++i) {
    if (i % 500 == 0) {  // relaxed, so that only the pool's own order is between the threads
      for (const unsigned seen = rounds.load(std::memory_order_relaxed) + 2;
           rounds.load(std::memory_order_relaxed) < seen;)
        std::this_thread::yield();
    }
    blocks.push_back(pool_->allocate(a(), 256));
  }
  is_over = true;
  at_ease.join();
  for (void* const block : blocks) pool_->deallocate(a(), block, 256);
}

TEST_F(pool_front_cache, of_one_pool_is_not_taken_for_that_of_another_at_the_same_place) {
  const auto upstream = std::make_shared<cuda_memory_resource>(0);
  for (int i = 0; i < 200; ++i) {  // more than a thread remembers
    pool_memory_resource passing(upstream, 1 * MiB, 1 * MiB);
    void* const block = passing.allocate({}, 256);
    passing.deallocate({}, block, 256);
    EXPECT_EQ(passing.allocate({}, 256), block);
    passing.deallocate({}, block, 256);
    passing.check();
  }
}

TEST_F(pool_front_cache, of_many_streams_that_come_and_go_are_used_again) {
  std::set<void*> blocks;
  for (int i = 0; i < 2'000; ++i) {
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    for (int pair = 0; pair < 3; ++pair) {
      void* const block = pool_->allocate(passing.view(), small);
      blocks.insert(block);
      pool_->deallocate(passing.view(), block, small);
    }
  }
  EXPECT_EQ(pool_->pool_size(), pool_bytes);
  EXPECT_LE(blocks.size(), pool_bytes / small);
}

TEST_F(pool_front_cache, takes_no_more_than_one_event_for_32_frees_of_many_streams) {
  std::vector<void*> blocks;
  for (int i = 0; i < 512; ++i) blocks.push_back(pool_->allocate(a(), 256));
  const auto before = pool_->counters().events;
  for (void* const block : blocks) pool_->deallocate(b(), block, 256);
  EXPECT_LE(pool_->counters().events - before, 512u / 32);
}

}  // namespace
}  // namespace cenote::test
