// Pools of graphs: later captures use what earlier ones have freed, and it all comes back.
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "cenote/cenote.h"
#include "cenote/driver/cuda_stream.hpp"
#include "cenote/surface/captures.hpp"
#include "support/graph_over_pages.hpp"

namespace cenote::test {
namespace {

constexpr graph_pool::number ours{7, 1};
constexpr std::size_t temporary_bytes = 4 * graph_page_bytes;

class graphs_of_a_pool : public graph_over_pages {
 protected:
  /// A graph that fills a temporary block, and copies a part of it to where it is kept.
  CUgraphExec graph_with_temporary(void* kept, unsigned char value) {
    begin();
    void* const temporary = pool_->allocate(captured_, temporary_bytes);
    fill_async(temporary, value, temporary_bytes, captured_, 0);
    copy_async(kept, static_cast<std::byte*>(temporary) + temporary_bytes - 256, 256, captured_, 0);
    pool_->deallocate(captured_, temporary, temporary_bytes);
    return end_and_instantiate();
  }

  CUgraphExec graph_in(graph_pool::number which, void* kept, unsigned char value) {
    begin_capture_into(0, which);
    const CUgraphExec executable = graph_with_temporary(kept, value);
    end_capture_into(0, which);
    return executable;
  }

  std::size_t bytes_after_trim() {
    finish_all_work();
    pool_->trim();
    pool_->check();
    return pool_->pool_size();
  }
};

TEST_F(graphs_of_a_pool, use_the_same_memory_and_compute_what_they_should) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  std::vector<CUgraphExec> graphs;
  for (unsigned char value = 1; value <= 16; ++value) graphs.push_back(graph_in(ours, kept, value));
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + temporary_bytes);
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      launch(graphs[i]);
      synchronize(captured_, 0);
      EXPECT_TRUE(holds(kept, static_cast<unsigned char>(i + 1), 256));
    }
  }
  for (const CUgraphExec each : graphs) {
    EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes) << "graphs are left";
    release_graph_pool(0, ours);
    EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  }
  pool_->deallocate(eager_, kept, 256);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, have_memory_of_their_own_where_they_are_in_none_or_in_another) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  const std::vector<CUgraphExec> graphs{graph_with_temporary(kept, 1), graph_with_temporary(kept, 2),
                                        graph_in(ours, kept, 3), graph_in({7, 2}, kept, 4), graph_in({8, 1}, kept, 5)};
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + graphs.size() * temporary_bytes);
  for (const graph_pool::number& each : {ours, graph_pool::number{7, 2}, graph_pool::number{8, 1}}) {
    release_graph_pool(0, each);
  }
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  pool_->deallocate(eager_, kept, 256);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, leave_their_memory_to_later_ones_until_the_pool_is_released) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  begin_capture_into(0, ours);
  end_capture_into(0, ours);  // counts by itself, with no capture
  EXPECT_EQ(cuGraphExecDestroy(graph_in(ours, kept, 1)), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes);
  EXPECT_EQ(cuGraphExecDestroy(graph_in(ours, kept, 2)), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes) << "the second took the first one's";
  for (int i = 0; i < 2; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes);
  release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes);
  const CUgraphExec later = graph_in(ours, kept, 3);
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + temporary_bytes) << "of another pool with these numbers";
  release_graph_pool(0, ours);
  EXPECT_EQ(cuGraphExecDestroy(later), CUDA_SUCCESS);
  pool_->deallocate(eager_, kept, 256);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, keep_a_block_that_is_in_use_or_that_another_stream_has_freed) {
  begin_capture_into(0, ours);
  begin();
  void* const used = pool_->allocate(captured_, temporary_bytes);
  void* const freed = pool_->allocate(captured_, temporary_bytes);
  const CUgraphExec first = end_and_instantiate();
  end_capture_into(0, ours);
  pool_->deallocate(eager_, freed, temporary_bytes);
  begin_capture_into(0, ours);
  begin();
  void* const later = pool_->allocate(captured_, temporary_bytes);
  EXPECT_NE(later, used);
  EXPECT_NE(later, freed) << "the other stream's work may still use it";
  pool_->deallocate(captured_, used, temporary_bytes);
  EXPECT_EQ(pool_->allocate(captured_, temporary_bytes), used) << "freed within the pool's own order";
  const CUgraphExec second = end_and_instantiate();
  end_capture_into(0, ours);
  for (void* const block : {used, later}) pool_->deallocate(eager_, block, temporary_bytes);
  for (const CUgraphExec each : {first, second}) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 2; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, that_are_abandoned_leave_nothing_behind) {
  for (int i = 0; i < 3; ++i) {
    begin_capture_into(0, ours);
    begin();
    void* const block = pool_->allocate(captured_, temporary_bytes);
    EXPECT_EQ(cuGraphDestroy(end()), CUDA_SUCCESS);
    end_capture_into(0, ours);
    pool_->deallocate(eager_, block, temporary_bytes);
  }
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, that_the_driver_does_not_tell_the_end_of_keep_their_memory_apart) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  const CUgraphExec first = graph_in(ours, kept, 1);
  simulator()->fail("cuGraphRetainUserObject", 1, CUDA_ERROR_NOT_SUPPORTED);
  const CUgraphExec second = graph_in(ours, kept, 2);
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + 2 * temporary_bytes);
  const CUgraphExec third = graph_in(ours, kept, 3);
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + 2 * temporary_bytes);
  for (const CUgraphExec each : {first, second, third}) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  pool_->deallocate(eager_, kept, 256);
  EXPECT_EQ(bytes_after_trim(), temporary_bytes) << "for ever";
}

TEST_F(graphs_of_a_pool, get_memory_from_any_thread_and_know_their_own_among_several) {
  const auto allocate_elsewhere = [&] {
    void* block = nullptr;
    std::thread([&] { block = pool_->allocate(captured_, temporary_bytes); }).join();
    pool_->deallocate(captured_, block, temporary_bytes);
  };
  std::vector<CUgraphExec> graphs;
  const auto capture = [&](const auto& allocate) {
    begin();
    allocate();
    graphs.push_back(end_and_instantiate());
  };
  for (int i = 0; i < 2; ++i) {
    begin_capture_into(0, ours);
    capture(allocate_elsewhere);
    end_capture_into(0, ours);
  }
  EXPECT_EQ(pool_->pool_size(), temporary_bytes) << "as on a thread of autograd's";
  std::thread([] { begin_capture_into(0, {9, 9}); }).join();
  begin_capture_into(0, ours);
  capture([&] { pool_->deallocate(captured_, pool_->allocate(captured_, temporary_bytes), temporary_bytes); });
  EXPECT_EQ(pool_->pool_size(), temporary_bytes) << "its own thread opened it";
  end_capture_into(0, ours);
  begin_capture_into(0, ours);
  capture(allocate_elsewhere);
  EXPECT_EQ(pool_->pool_size(), 2 * temporary_bytes) << "it may be of either";
  end_capture_into(0, ours);
  end_capture_into(0, {9, 9});
  release_graph_pool(0, {9, 9});
  for (int i = 0; i < 4; ++i) release_graph_pool(0, ours);
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, are_captured_by_several_threads_at_once) {
  constexpr unsigned threads = 4;
  std::vector<std::thread> all;
  for (unsigned number = 0; number < threads; ++number) {
    all.emplace_back([this, number] {
      const cuda_stream stream(0, cuda_stream::kind::non_blocking);
      const graph_pool::number which{100 + number % 2, 0};  // two threads have one pool
      for (int i = 0; i < 50; ++i) {
        begin_capture_into(0, which);
        EXPECT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
        void* const block = pool_->allocate(stream, temporary_bytes);
        fill_async(block, 1, temporary_bytes, stream, 0);
        pool_->deallocate(stream, block, temporary_bytes);
        CUgraph graph = nullptr;
        EXPECT_EQ(cuStreamEndCapture(stream.value(), &graph), CUDA_SUCCESS);
        end_capture_into(0, which);
        if (i % 2 == 0) release_graph_pool(0, which);
        EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
        if (i % 2 != 0) release_graph_pool(0, which);
      }
    });
  }
  for (std::thread& each : all) each.join();
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, refuse_what_makes_no_sense_and_change_nothing) {
  EXPECT_THROW(end_capture_into(0, ours), std::invalid_argument);
  EXPECT_THROW(release_graph_pool(0, ours), std::invalid_argument);
  EXPECT_THROW(begin_capture_into(99, ours), std::out_of_range);
  begin_capture_into(0, ours);
  EXPECT_THROW(release_graph_pool(0, ours), std::invalid_argument) << "it is open";
  EXPECT_THROW(end_capture_into(0, {1, 7}), std::invalid_argument);
  end_capture_into(0, ours);
  release_graph_pool(0, ours);
  EXPECT_THROW(release_graph_pool(0, ours), std::invalid_argument);
}

TEST_F(graphs_of_a_pool, are_there_in_c) {
  EXPECT_EQ(cenote_graph_pool_begin(0, 7, 1), CENOTE_OK);
  EXPECT_EQ(cenote_graph_pool_end(0, 7, 1), CENOTE_OK);
  EXPECT_EQ(cenote_graph_pool_release(0, 7, 1), CENOTE_OK);
  EXPECT_EQ(cenote_graph_pool_release(0, 7, 1), CENOTE_INVALID_ARGUMENT);
  EXPECT_STREQ(cenote_last_error(),
               "the pool of graphs 7, 1 of device 0 is not known, or was released as often as it was begun");
  EXPECT_EQ(cenote_graph_pool_begin(-1, 7, 1), CENOTE_OUT_OF_RANGE);
}

}  // namespace
}  // namespace cenote::test
