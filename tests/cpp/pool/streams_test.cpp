// The pool between streams: who may use a freed block, after what. Work runs only when something waits for it, so an
// order that is missing shows as wrong bytes.
#include <algorithm>
#include <array>
#include <thread>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/hand_over.hpp"
#include "support/pool_of_streams.hpp"

namespace cenote::test {
namespace {

const stream_ref per_thread_default(CU_STREAM_PER_THREAD);

TEST_F(pool_streams, a_block_of_another_stream_is_used_after_that_streams_work) {
  void* const witness = device_allocate(0, block_bytes);
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  const call_count host_waits("cuStreamSynchronize");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(host_waits.value(), 0) << "the device waits, the host does not";
  EXPECT_EQ(pool_->counters().waits, 1u);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

TEST_F(pool_streams, the_smaller_of_an_own_and_a_ready_block_is_taken) {
  pool_memory_resource pool(std::make_shared<cuda_memory_resource>(0), 20 * MiB, 20 * MiB);
  const auto loop = [&] {
    void* const first = pool.allocate(a(), 1 * MiB);
    pool.deallocate(b(), pool.allocate(a(), 5 * MiB), 5 * MiB);
    void* const second = pool.allocate(a(), 2 * MiB);
    void* const third = pool.allocate(a(), 8 * MiB);
    pool.deallocate(a(), second, 2 * MiB);
    pool.deallocate(b(), first, 1 * MiB);
    pool.deallocate(a(), third, 8 * MiB);
  };
  for (int round = 0; round < 4; ++round) EXPECT_NO_THROW(loop()) << "round " << round << ": 11 of 20 MiB are in use";
}

TEST_F(pool_streams, bytes_are_wrong_where_nobody_waits) {
  // The same without the pool: proof that the test above can fail.
  void* const witness = device_allocate(0, block_bytes);
  void* const block = device_allocate(0, block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_FALSE(seen.block_is_the_new_owners) << "A's work came last";
  device_free(0, block);
  device_free(0, witness);
}

TEST_F(pool_streams, waiting_runs_the_former_owners_work_and_no_more_of_it) {
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  void* const later = device_allocate(0, 256);
  fill_async(later, 1, 256, a(), 0);  // queued on A after the free: B has no part in it
  void* const again = pool_->allocate(b(), block_bytes);
  synchronize(b(), 0);
  EXPECT_FALSE(is_done(a(), 0));
  pool_->deallocate(b(), again, block_bytes);
  cenote_sim_drain();
  device_free(0, later);
}

TEST_F(pool_streams, waits_once_for_an_order_that_is_then_known) {
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(a(), 16 * unit);
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(a(), high, 16 * unit);
  const call_count waits("cuStreamWaitEvent");
  void* const first = pool_->allocate(b(), 15 * unit);
  void* const second = pool_->allocate(b(), 16 * unit);
  EXPECT_EQ(waits.value(), 1);
  EXPECT_EQ(pool_->counters().from_other_stream, 2u);
  pool_->deallocate(b(), first, 15 * unit);
  pool_->deallocate(b(), second, 16 * unit);
}

TEST_F(pool_streams, a_later_free_is_waited_for_again) {
  for (int round = 1; round <= 3; ++round) {
    void* const block = pool_->allocate(a(), block_bytes);
    pool_->deallocate(a(), block, block_bytes);
    void* const again = pool_->allocate(b(), block_bytes);
    EXPECT_GE(pool_->counters().waits, 2u * static_cast<unsigned>(round) - 1) << "A waited for B, and B for A";
    pool_->deallocate(b(), again, block_bytes);
  }
}

TEST_F(pool_streams, a_stream_that_was_forgotten_meanwhile_is_waited_for_again) {
  void* const block = pool_->allocate(a(), block_bytes);
  pool_->deallocate(a(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);        // B knows A's order up to here
  EXPECT_EQ(pool_->try_allocate(b(), block_bytes), nullptr);  // in search of memory the pool forgets A, which has none
  pool_->deallocate(b(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(a(), block_bytes), block);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  pool_->deallocate(a(), block, block_bytes);
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block);
  EXPECT_EQ(pool_->counters().waits, 3u);
  fill_async(block, 0xBB, block_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(block, block_bytes, b()), 0xBB));
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_streams, a_wait_that_failed_is_no_allocation) {
  void* const block = pool_->allocate(a(), block_bytes);
  pool_->deallocate(a(), block, block_bytes);
  const auto before = pool_->counters();
  cenote_sim_fail("cuStreamWaitEvent", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(pool_->allocate(b(), block_bytes), cuda_error);
  EXPECT_EQ(pool_->counters().allocations, before.allocations);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream);
  EXPECT_EQ(pool_->state().in_use, 1 * unit);
  EXPECT_EQ(pool_->allocate(b(), block_bytes), block);
  pool_->deallocate(b(), block, block_bytes);
}

TEST_F(pool_streams, a_block_that_no_event_covers_is_reclaimed_behind_all_work) {
  void* const witness = device_allocate(0, block_bytes);
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  copy_async(witness, block, block_bytes, a(), 0);
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);  // the mark is not to be had
  pool_->deallocate(a(), block, block_bytes);
  const call_count context_events("cuCtxRecordEvent");
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(context_events.value(), 1);
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

TEST_F(pool_streams, reclaiming_joins_the_blocks_of_all_streams) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(c.view(), 16 * unit);
  for (int i = 0; i < 8; ++i) {  // more work than asking an event gets done
    fill_async(low, 0xAA, 15 * unit, a(), 0);
    fill_async(high, 0xAA, 16 * unit, c.view(), 0);
  }
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(c.view(), high, 16 * unit);
  void* const both = pool_->allocate(b(), block_bytes);
  EXPECT_EQ(both, std::min(low, high));
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  fill_async(both, 0xBB, block_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(both, block_bytes, b()), 0xBB));
  pool_->deallocate(b(), both, block_bytes);
}

TEST_F(pool_streams, a_block_is_everybodys_once_its_event_has_completed) {
  const cuda_stream c(0, cuda_stream::kind::non_blocking);
  void* const low = pool_->allocate(a(), 15 * unit);
  void* const high = pool_->allocate(c.view(), 16 * unit);
  pool_->deallocate(a(), low, 15 * unit);
  pool_->deallocate(c.view(), high, 16 * unit);
  synchronize(a(), 0);
  synchronize(c.view(), 0);
  void* const both = pool_->allocate(b(), block_bytes);  // in neither stream's blocks alone
  EXPECT_EQ(both, std::min(low, high));
  EXPECT_EQ(pool_->counters().waits, 0u);
  EXPECT_EQ(pool_->counters().from_reclaim, 0u);
  pool_->deallocate(b(), both, block_bytes);
}

TEST_F(pool_streams, blocks_outlive_the_stream_that_freed_them) {
  void* const witness = device_allocate(0, block_bytes);
  void* block = nullptr;
  {
    const cuda_stream gone(0, cuda_stream::kind::non_blocking);
    block = pool_->allocate(gone.view(), block_bytes);
    fill_async(block, 0xAA, block_bytes, gone.view(), 0);
    copy_async(witness, block, block_bytes, gone.view(), 0);
    cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);  // no mark either: nothing is left to wait for but all
    pool_->deallocate(gone.view(), block, block_bytes);
  }
  void* const again = pool_->allocate(b(), block_bytes);
  ASSERT_EQ(again, block);
  const outcome seen = hand_over(a(), b(), block, witness, block_bytes);
  EXPECT_TRUE(seen.former_owner_was_done);
  EXPECT_TRUE(seen.block_is_the_new_owners);
  pool_->deallocate(b(), again, block_bytes);
  device_free(0, witness);
}

TEST_F(pool_streams, under_pressure_each_free_is_marked_at_once) {
  constexpr std::size_t small = unit / 2;  // not worth a mark of its own
  std::vector<void*> blocks;
  while (void* const block = pool_->try_allocate(a(), small)) blocks.push_back(block);
  const auto before = pool_->counters();
  for (int i = 0; i < 200; ++i) {
    const stream_ref from = i % 2 == 0 ? a() : b(), to = i % 2 == 0 ? b() : a();
    fill_async(blocks[0], 0xAA, small, from, 0);
    void* const witness = device_allocate(0, small);
    copy_async(witness, blocks[0], small, from, 0);
    pool_->deallocate(from, blocks[0], small);
    void* const again = pool_->allocate(to, small);
    ASSERT_EQ(again, blocks[0]);
    if (i % 20 == 0) {
      const outcome seen = hand_over(from, to, again, witness, small);
      EXPECT_TRUE(seen.former_owner_was_done);
      EXPECT_TRUE(seen.block_is_the_new_owners);
    }
    device_free(0, witness);
  }
  const auto after = pool_->counters();
  EXPECT_EQ(after.waits - before.waits, 200u) << "one for each hand-over";
  EXPECT_EQ(after.from_reclaim - before.from_reclaim, 1u);
  EXPECT_EQ(after.from_other_stream - before.from_other_stream, 199u);
  EXPECT_EQ(after.events - before.events, 200u)
      << "one for each free after the first, and one for what the reclaim left";
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
}

TEST_F(pool_streams, without_pressure_frees_share_their_marks_again) {
  constexpr std::size_t small = unit / 2;
  std::vector<void*> blocks;
  while (void* const block = pool_->try_allocate(a(), small)) blocks.push_back(block);
  pool_->deallocate(a(), blocks.back(), small);
  blocks.back() = pool_->allocate(b(), small);  // the pressure
  const auto before = pool_->counters();
  const auto frees = [&](int count) {
    for (int i = 0; i < count; ++i) {
      pool_->deallocate(a(), blocks[0], small);
      blocks[0] = pool_->allocate(a(), small);
    }
    return pool_->counters().events - before.events;
  };
  EXPECT_EQ(frees(32), 32u);
  EXPECT_EQ(frees(64), 32u + 64u / 2) << "two of these blocks are worth a mark";
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
}

TEST_F(pool_streams, waiting_for_another_is_no_pressure) {
  constexpr std::size_t small = unit / 8;
  void* const large = pool_->allocate(a(), 16 * unit);
  std::array<void*, 3> blocks{};
  for (void*& block : blocks) block = pool_->allocate(a(), small);
  pool_->deallocate(a(), large, 16 * unit);
  void* const again = pool_->allocate(b(), 16 * unit);
  const auto before = pool_->counters();
  EXPECT_EQ(before.waits, 1u);
  for (void* const block : blocks) pool_->deallocate(a(), block, small);
  EXPECT_EQ(pool_->counters().events, before.events) << "together they are not worth a mark";
  pool_->deallocate(b(), again, 16 * unit);
}

/// For a sanitizer: each thread's search for memory makes the pool forget the others' streams, which have none.
TEST_F(pool_streams, are_forgotten_by_one_thread_while_others_use_them) {
  const auto search = [&] {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < 500; ++i) EXPECT_EQ(pool_->try_allocate(own.view(), pool_bytes), nullptr);
  };
  std::thread one(search), two(search), three(search);
  one.join();
  two.join();
  three.join();
}

TEST_F(pool_streams, the_per_thread_default_streams_of_two_threads_are_two_streams) {
  void* block = nullptr;
  std::thread([&] {
    block = pool_->allocate(per_thread_default, block_bytes);
    fill_async(block, 0xAA, block_bytes, per_thread_default, 0);
    pool_->deallocate(per_thread_default, block, block_bytes);
  }).join();
  const auto own_before = pool_->counters().from_own_stream;
  void* const again = pool_->allocate(per_thread_default, block_bytes);
  ASSERT_EQ(again, block);
  EXPECT_EQ(pool_->counters().from_own_stream, own_before);
  fill_async(again, 0xBB, block_bytes, per_thread_default, 0);
  synchronize(per_thread_default, 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(again, block_bytes, per_thread_default), 0xBB));
  pool_->deallocate(per_thread_default, again, block_bytes);
}

TEST_F(pool_streams, both_names_of_the_legacy_default_stream_are_one_stream) {
  void* const block = pool_->allocate({}, block_bytes);
  pool_->deallocate({}, block, block_bytes);
  const auto own_before = pool_->counters().from_own_stream;
  EXPECT_EQ(pool_->allocate(stream_ref(CU_STREAM_LEGACY), block_bytes), block);
  EXPECT_EQ(pool_->counters().from_own_stream, own_before + 1);
  pool_->deallocate({}, block, block_bytes);
}

TEST_F(pool_streams, one_event_is_recorded_for_many_small_frees) {
  std::vector<void*> blocks;
  for (int i = 0; i < 1024; ++i) blocks.push_back(pool_->allocate(a(), 256));
  const call_count records("cuEventRecord");
  for (void* const block : blocks) pool_->deallocate(a(), block, 256);
  EXPECT_GE(records.value(), 16);
  EXPECT_LE(records.value(), 32);
}

TEST_F(pool_streams, a_stream_that_cannot_be_identified_frees_to_nobody_until_a_reclaim) {
  void* const block = pool_->allocate(a(), block_bytes);
  fill_async(block, 0xAA, block_bytes, a(), 0);
  cenote_sim_fail("cuStreamIsCapturing", 1, CUDA_ERROR_UNKNOWN);
  pool_->deallocate(a(), block, block_bytes);
  void* const again = pool_->allocate(a(), block_bytes);
  EXPECT_EQ(again, block);
  EXPECT_EQ(pool_->counters().from_reclaim, 1u);
  pool_->deallocate(a(), again, block_bytes);
}

TEST_F(pool_streams, a_stream_of_another_device_may_free_and_not_allocate) {
  const cuda_stream foreign(1);
  EXPECT_THROW(pool_->allocate(foreign.view(), 256), std::invalid_argument);
  void* const block = pool_->allocate(a(), block_bytes);
  pool_->deallocate(foreign.view(), block, block_bytes);
  EXPECT_EQ(pool_->state().in_use, 1 * unit) << "it is not lost";
  void* const again = pool_->try_allocate(b(), block_bytes);
  EXPECT_EQ(again, block) << "after that stream's work";
  pool_->deallocate(b(), again, block_bytes);
}

}  // namespace
}  // namespace cenote::test
