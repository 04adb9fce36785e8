// What a pool of the driver does where memory is short, as an H200 does it: the numbers are shares of the card.
#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

constexpr std::size_t percent(std::size_t share) { return card_bytes * share / 100 / step * step; }
constexpr cuuint64_t keep_everything = UINT64_MAX;

class SimPoolPressure : public Sim {
 protected:
  void TearDown() override {
    EXPECT_OK(cuCtxSynchronize());
    for (const CUmemoryPool pool : pools_) {
      EXPECT_OK(cuMemPoolDestroy(pool));
    }
    Sim::TearDown();
  }

  CUmemoryPool make_pool(cuuint64_t threshold = 0, std::size_t max_bytes = 0) {
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = on_device(0);
    properties.maxSize = max_bytes;
    CUmemoryPool pool = nullptr;
    EXPECT_OK(cuMemPoolCreate(&pool, &properties));
    EXPECT_OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    pools_.push_back(pool);
    return pool;
  }

  static void forbid(CUmemoryPool pool, CUmemPool_attribute reuse) {
    int no = 0;
    EXPECT_OK(cuMemPoolSetAttribute(pool, reuse, &no));
  }

  static CUdeviceptr take(CUmemoryPool pool, std::size_t bytes, CUstream stream) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAllocFromPoolAsync(&address, bytes, pool, stream));
    return address;
  }

  /// What the pool says to an allocation; the memory goes at once.
  static CUresult ask(CUmemoryPool pool, std::size_t bytes, CUstream stream) {
    CUdeviceptr address = 0;
    const CUresult result = cuMemAllocFromPoolAsync(&address, bytes, pool, stream);
    EXPECT_OK(cuMemFreeAsync(address, stream));
    return result;
  }

  /// Takes a share of the card and frees it on the stream, behind work that has not run.
  static void free_behind_work(CUmemoryPool pool, std::size_t bytes, CUstream stream) {
    const CUdeviceptr memory = take(pool, bytes, stream);
    EXPECT_OK(cuMemsetD8Async(memory, 1, 8, stream));
    EXPECT_OK(cuMemFreeAsync(memory, stream));
  }

  /// Lets the work run without a wait of the program for it.
  static void let_it_run() { cenote_sim_drain(); }

  static std::size_t reserved(CUmemoryPool pool) {
    cuuint64_t bytes = 0;
    EXPECT_OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes));
    return bytes;
  }

  std::vector<CUmemoryPool> pools_;
};

TEST_F(SimPoolPressure, memory_that_is_freed_behind_work_serves_another_stream_which_then_comes_after_the_free) {
  const CUmemoryPool pool = make_pool();
  const CUstream freeing = make_stream();
  const CUstream asking = make_stream();
  free_behind_work(pool, percent(58), freeing);
  const CUdeviceptr memory = take(pool, percent(54), asking);
  EXPECT_EQ(CUDA_ERROR_NOT_READY, cuStreamQuery(asking)) << "it waits for the free";
  EXPECT_EQ(percent(58), reserved(pool));
  EXPECT_OK(cuMemsetD8Async(memory, 2, 8, asking));
  EXPECT_OK(cuStreamSynchronize(asking));
  EXPECT_EQ(2, byte_at(memory)) << "the older work came first";
  EXPECT_OK(cuMemFreeAsync(memory, asking));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_EQ(0U, reserved(pool));
}

TEST_F(SimPoolPressure, it_comes_after_the_free_and_not_after_what_is_queued_behind_it) {
  const CUmemoryPool pool = make_pool();
  const CUstream freeing = make_stream();
  const CUstream asking = make_stream();
  const CUdeviceptr other = make_memory();
  free_behind_work(pool, percent(80), freeing);
  EXPECT_OK(cuMemsetD8Async(other, 1, 8, freeing));
  const CUdeviceptr memory = take(pool, percent(80), asking);
  EXPECT_OK(cuStreamSynchronize(asking));
  EXPECT_EQ(1U, cenote_sim_pending());
  EXPECT_OK(cuMemFreeAsync(memory, asking));
  EXPECT_OK(cuCtxSynchronize());
}

TEST_F(SimPoolPressure, pieces_that_were_freed_on_several_streams_serve_a_third_one_together) {
  const CUmemoryPool pool = make_pool();
  const CUstream streams[] = {make_stream(), make_stream()};
  std::vector<CUdeviceptr> pieces;
  for (int i = 0; i < 12; ++i) {
    pieces.push_back(take(pool, percent(5), streams[i % 2]));
  }
  for (int i = 0; i < 12; ++i) {
    EXPECT_OK(cuMemsetD8Async(pieces[i], 1, 8, streams[i % 2]));
    EXPECT_OK(cuMemFreeAsync(pieces[i], streams[i % 2]));
  }
  const CUstream asking = make_stream();
  const CUdeviceptr memory = take(pool, 12 * percent(5), asking);
  EXPECT_OK(cuStreamSynchronize(asking));
  EXPECT_EQ(0U, cenote_sim_pending()) << "after all twelve frees";
  EXPECT_OK(cuMemFreeAsync(memory, asking));
}

TEST_F(SimPoolPressure, a_part_of_a_piece_may_be_taken_and_the_rest_is_still_its_streams) {
  const CUmemoryPool pool = make_pool();
  const CUstream freeing = make_stream();
  const CUstream asking = make_stream();
  free_behind_work(pool, percent(90), freeing);
  const CUdeviceptr part = take(pool, percent(30), asking);
  const CUdeviceptr rest = take(pool, percent(60), freeing);
  EXPECT_EQ(part + percent(30), rest);
  EXPECT_OK(cuMemFreeAsync(part, asking));
  EXPECT_OK(cuMemFreeAsync(rest, freeing));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_EQ(0U, reserved(pool));
}

TEST_F(SimPoolPressure, a_pool_that_may_not_make_streams_wait_refuses) {
  const CUmemoryPool pool = make_pool();
  forbid(pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES);
  free_behind_work(pool, percent(58), make_stream());
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, ask(pool, percent(54), make_stream()));
  EXPECT_EQ(percent(58), reserved(pool)) << "and gives up nothing for it";
  EXPECT_OK(cuCtxSynchronize());
}

TEST_F(SimPoolPressure, no_stream_is_made_to_wait_where_the_card_has_room) {
  const CUmemoryPool pool = make_pool();
  const CUstream asking = make_stream();
  free_behind_work(pool, percent(58), make_stream());
  const CUdeviceptr memory = take(pool, percent(30), asking);
  EXPECT_OK(cuStreamQuery(asking));
  EXPECT_EQ(percent(58) + percent(30), reserved(pool));
  EXPECT_OK(cuMemFreeAsync(memory, asking));
}

TEST_F(SimPoolPressure, a_limit_of_the_pool_is_pressure_as_well) {
  const CUmemoryPool pool = make_pool(0, 20 * MiB);
  free_behind_work(pool, 15 * MiB, make_stream());
  EXPECT_OK(ask(pool, 15 * MiB, make_stream()));
  EXPECT_EQ(16 * MiB, reserved(pool));
}

TEST_F(SimPoolPressure, a_limit_is_rounded_up_to_a_segment_and_cannot_be_above_the_card) {
  const CUmemoryPool pool = make_pool(0, 1);
  const CUdeviceptr memory = take(pool, MiB, nullptr);
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, ask(pool, 40 * MiB, nullptr));
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = on_device(0);
  properties.maxSize = card_bytes + 1;
  CUmemoryPool none = nullptr;
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemPoolCreate(&none, &properties));
  EXPECT_OK(cuMemFreeAsync(memory, nullptr));
}

TEST_F(SimPoolPressure, scattered_free_segments_are_given_up_for_a_larger_one) {
  const CUmemoryPool pool = make_pool(keep_everything);
  const CUstream stream = make_stream();
  std::vector<CUdeviceptr> pieces;
  for (int i = 0; i < 6; ++i) {
    pieces.push_back(take(pool, percent(15), stream));
  }
  for (int i = 0; i < 6; i += 2) {
    EXPECT_OK(cuMemFreeAsync(pieces[i], stream));
  }
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, ask(pool, percent(40), make_stream())) << "the frees have not run";
  let_it_run();
  EXPECT_OK(ask(pool, percent(40), make_stream()));
  for (int i = 1; i < 6; i += 2) {
    EXPECT_OK(cuMemFreeAsync(pieces[i], stream));
  }
}

TEST_F(SimPoolPressure, memory_whose_free_the_program_has_not_seen_stays_its_pools) {
  const CUmemoryPool pool = make_pool();
  free_behind_work(pool, percent(80), make_stream());
  let_it_run();
  EXPECT_OK(cuMemPoolTrimTo(pool, 0));
  EXPECT_EQ(percent(80), reserved(pool));
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, ask(make_pool(), percent(80), make_stream()));
  CUdeviceptr memory = 0;
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&memory, percent(80)));
  EXPECT_OK(ask(pool, percent(80), make_stream())) << "its own";
  EXPECT_OK(cuCtxSynchronize());
}

TEST_F(SimPoolPressure, memory_above_no_need_is_given_up_by_other_pools_once_the_program_has_waited) {
  const CUmemoryPool pool = make_pool(keep_everything);
  const CUstream stream = make_stream();
  free_behind_work(pool, percent(80), stream);
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(percent(80), reserved(pool));
  EXPECT_OK(ask(make_pool(), percent(10), stream));
  EXPECT_EQ(percent(80), reserved(pool)) << "nothing else needs it";
  EXPECT_OK(cuStreamSynchronize(stream));
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAlloc(&memory, percent(80)));
  EXPECT_EQ(0U, reserved(pool));
}

TEST_F(SimPoolPressure, an_allocation_that_cannot_be_served_takes_nothing_from_anybody) {
  const CUmemoryPool pool = make_pool(keep_everything);
  const CUstream stream = make_stream();
  const CUdeviceptr half = make_memory(percent(50));
  free_behind_work(pool, percent(40), stream);
  EXPECT_OK(cuStreamSynchronize(stream));
  CUdeviceptr memory = 0;
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&memory, percent(60)));
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, ask(pool, percent(60), stream));
  EXPECT_EQ(percent(40), reserved(pool));
  EXPECT_OK(cuMemFree(half));
}

TEST_F(SimPoolPressure, a_pool_that_may_not_look_at_streams_reuses_once_the_program_has_waited) {
  const CUmemoryPool pool = make_pool(keep_everything);
  forbid(pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC);
  const CUstream stream = make_stream();
  free_behind_work(pool, 4 * MiB, stream);
  let_it_run();
  EXPECT_OK(ask(pool, 4 * MiB, make_stream()));
  EXPECT_EQ(8 * MiB, reserved(pool));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_OK(ask(pool, 4 * MiB, make_stream()));
  EXPECT_EQ(8 * MiB, reserved(pool));
}

}  // namespace
}  // namespace cenote::sim_test
