// A pool over virtual memory and the graphs that work is captured into: their pages are their own, and come back.
#include <vector>

#include "cenote/driver/pinned_chunks.hpp"
#include "support/graph_over_pages.hpp"

namespace cenote::test {
namespace {

TEST_F(graph_over_pages, leaves_nothing_behind_when_it_is_destroyed) {
  for (int i = 0; i < 6; ++i) {
    begin();
    void* const block = pool_->allocate(captured_, GiB);
    void* const temporary = pool_->allocate(captured_, 64 * MiB);
    fill_async(block, 1, 256, captured_, 0);
    pool_->deallocate(captured_, temporary, 64 * MiB);
    const CUgraphExec executable = end_and_instantiate();
    launch(executable);
    synchronize(captured_, 0);
    EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
    pool_->deallocate(eager_, block, GiB);
    EXPECT_LE(pool_->pool_size(), 2 * (GiB + 128 * MiB)) << "at most that of the one before, beside graph " << i;
  }
  finish_all_work();
  pool_->trim();
  EXPECT_EQ(pool_->pool_size(), 0u);
  pool_->check();
}

TEST_F(graph_over_pages, gives_back_what_was_freed_before_it_was_destroyed) {
  void* block = nullptr;
  const CUgraphExec executable = graph_that_fills(block, 8 * graph_page_bytes, 1);
  pool_->deallocate(eager_, block, 8 * graph_page_bytes);
  EXPECT_EQ(pool_->trim(0, true), 0u) << "the graph may be launched again";
  launch(executable);
  EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
  EXPECT_EQ(pool_->trim(), 0u) << "it runs";
  finish_all_work();
  EXPECT_EQ(pool_->trim(), 8 * graph_page_bytes);
  EXPECT_EQ(pool_->pool_size(), 0u);
}

TEST_F(graph_over_pages, gives_back_what_others_still_use_when_they_are_done) {
  void* block = nullptr;
  const CUgraphExec executable = graph_that_fills(block, 8 * graph_page_bytes, 1);
  for (int i = 0; i < 100; ++i) fill_async(block, 2, 256, eager_, 0);
  pool_->deallocate(eager_, block, 8 * graph_page_bytes);
  EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
  EXPECT_EQ(pool_->trim(), 0u) << "the other stream's work is pending";
  finish_all_work();
  EXPECT_EQ(pool_->trim(), 8 * graph_page_bytes);
}

TEST_F(graph_over_pages, gives_back_what_was_used_before_its_capture_when_that_work_is_done) {
  void* const block = pool_->allocate(captured_, 8 * graph_page_bytes);
  for (int i = 0; i < 100; ++i) fill_async(block, 2, 256, captured_, 0);
  begin();
  pool_->deallocate(captured_, block, 8 * graph_page_bytes);
  EXPECT_EQ(cuGraphDestroy(end()), CUDA_SUCCESS);
  EXPECT_EQ(pool_->trim(), 0u) << "work from before the capture is pending";
  finish_all_work();
  EXPECT_EQ(pool_->trim(), 8 * graph_page_bytes);
}

TEST_F(graph_over_pages, a_block_that_outlives_its_graph_is_like_any_other) {
  void* block = nullptr;
  const CUgraphExec executable = graph_that_fills(block, 8 * graph_page_bytes, 1);
  EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
  EXPECT_EQ(pool_->trim(0, true), 0u) << "it is in use";
  pool_->deallocate(eager_, block, 8 * graph_page_bytes);
  EXPECT_EQ(pool_->allocate(eager_, 8 * graph_page_bytes), block);
  pool_->deallocate(eager_, block, 8 * graph_page_bytes);
}

TEST_F(graph_over_pages, an_abandoned_capture_gives_its_memory_back) {
  begin();
  void* const never_instantiated = pool_->allocate(captured_, 4 * graph_page_bytes);
  EXPECT_EQ(cuGraphDestroy(end()), CUDA_SUCCESS);
  begin();
  void* const invalidated = pool_->allocate(captured_, 4 * graph_page_bytes);
  unsigned long long id = 0;
  EXPECT_NE(cuStreamGetId(captured_.value(), &id), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(captured_.value(), &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  simulator()->clear_violations();  // that was one
  for (void* const block : {never_instantiated, invalidated}) pool_->deallocate(eager_, block, 4 * graph_page_bytes);
  finish_all_work();
  pool_->trim();
  EXPECT_EQ(pool_->pool_size(), 0u);
  pool_->check();
}

TEST_F(graph_over_pages, shares_no_page_with_others) {
  const auto page_of = [](void* block) { return reinterpret_cast<std::uintptr_t>(block) / graph_page_bytes; };
  void* const before = pool_->allocate(eager_, 256);
  begin();
  void* const first = pool_->allocate(captured_, 256);
  void* const beside = pool_->allocate(eager_, 3 * graph_page_bytes / 2);
  void* const second = pool_->allocate(captured_, 256);
  EXPECT_EQ(page_of(first), page_of(second));
  const CUgraph graph = end();
  void* const after = pool_->allocate({}, 256);
  for (void* const block : {before, beside, after}) EXPECT_NE(page_of(block), page_of(first));
  pool_->deallocate({}, after, 256);
  pool_->deallocate(eager_, beside, 3 * graph_page_bytes / 2);
  pool_->deallocate(eager_, before, 256);
  for (void* const block : {first, second}) pool_->deallocate(eager_, block, 256);
  pool_->trim(0, true);
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes) << "the graph's";
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
}

TEST_F(graph_over_pages, replays_rightly_after_eager_work_has_moved_everything_around_it) {
  make_pool(24 * graph_page_bytes);
  void* block = nullptr;
  const CUgraphExec executable = graph_that_fills(block, 4 * graph_page_bytes, 7);
  for (int round = 0; round < 10; ++round) {
    std::vector<void*> small;
    for (int i = 0; i < 20; ++i) small.push_back(pool_->allocate(eager_, graph_page_bytes));
    EXPECT_EQ(pool_->try_allocate(eager_, graph_page_bytes), nullptr) << "the rest is the graph's";
    for (int i = round % 2; i < 20; i += 2) pool_->deallocate(eager_, small[i], graph_page_bytes);
    void* const large = pool_->allocate(eager_, 10 * graph_page_bytes);
    fill_async(large, 3, 10 * graph_page_bytes, eager_, 0);
    launch(executable);
    EXPECT_TRUE((synchronize(captured_, 0), holds(block, 7, 4 * graph_page_bytes)));
    EXPECT_TRUE((synchronize(eager_, 0), holds(large, 3, 10 * graph_page_bytes)));
    fill_async(block, 0, 4 * graph_page_bytes, captured_, 0);
    pool_->deallocate(eager_, large, 10 * graph_page_bytes);
    for (int i = 1 - round % 2; i < 20; i += 2) pool_->deallocate(eager_, small[i], graph_page_bytes);
  }
  EXPECT_GT(pool_->counters().pages_moved, 0u);
  EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
  pool_->deallocate(captured_, block, 4 * graph_page_bytes);
  void* const all = pool_->allocate(eager_, 24 * graph_page_bytes);
  EXPECT_NE(all, nullptr);
  pool_->deallocate(eager_, all, 24 * graph_page_bytes);
}

TEST_F(graph_over_pages, is_launched_again_after_its_pool_was_paused) {
  void* kept = nullptr;
  begin();
  kept = pool_->allocate(captured_, MiB);
  void* const inner = pool_->allocate(captured_, MiB);
  fill_async(inner, 4, MiB, captured_, 0);
  copy_async(kept, inner, MiB, captured_, 0);
  pool_->deallocate(captured_, inner, MiB);  // the graph uses it whenever it is launched
  const CUgraphExec executable = end_and_instantiate();
  launch(executable);
  for (int cycle = 0; cycle < 2; ++cycle) {
    EXPECT_GE(pool_->pause(), graph_page_bytes);
    EXPECT_EQ(pool_->pool_size(), 0u);
    pool_->resume();
    pool_->check();
    EXPECT_TRUE(holds(kept, 4, MiB));
    fill_async(kept, 9, MiB, captured_, 0);
    launch(executable);
    synchronize(captured_, 0);
    EXPECT_TRUE(holds(kept, 4, MiB));
  }
  pool_->deallocate(captured_, kept, MiB);
  EXPECT_EQ(cuGraphExecDestroy(executable), CUDA_SUCCESS);
  pinned_chunks::get().keep_at_most(0);
}

}  // namespace
}  // namespace cenote::test
