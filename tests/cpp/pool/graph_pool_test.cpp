// Pools of graphs: later captures use what earlier ones have freed, and it all comes back.
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cenote/cenote.h"
#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/event.hpp"
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
    begin_capture_into(0, which, captured_);
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

TEST_F(graphs_of_a_pool, give_their_memory_back_when_all_that_use_it_are_gone_whoever_counts_on_the_pool) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  const CUgraphExec first = graph_in(ours, kept, 1);
  const CUgraphExec second = graph_in(ours, kept, 2);
  EXPECT_EQ(cuGraphExecDestroy(first), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes) << "the second uses it";
  launch(second);
  EXPECT_TRUE((synchronize(captured_, 0), holds(kept, 2, 256)));
  EXPECT_EQ(cuGraphExecDestroy(second), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes);
  const CUgraphExec third = graph_in(ours, kept, 3);
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), graph_page_bytes + temporary_bytes) << "released too early: the graph has it";
  const CUgraphExec later = graph_in(ours, kept, 4);
  EXPECT_EQ(pool_->pool_size(), graph_page_bytes + 2 * temporary_bytes) << "of another pool with these numbers";
  release_graph_pool(0, ours);
  for (const CUgraphExec each : {third, later}) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  pool_->deallocate(eager_, kept, 256);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, keep_what_is_in_use_and_take_what_was_freed_since) {
  begin_capture_into(0, ours, captured_);
  begin();
  void* const used = pool_->allocate(captured_, temporary_bytes);
  void* const freed = pool_->allocate(captured_, temporary_bytes);
  const CUgraphExec first = end_and_instantiate();
  end_capture_into(0, ours);
  pool_->deallocate(eager_, freed, temporary_bytes);
  begin_capture_into(0, ours, captured_);
  begin();
  EXPECT_EQ(pool_->allocate(captured_, temporary_bytes), freed);
  pool_->deallocate(captured_, used, temporary_bytes);
  EXPECT_EQ(pool_->allocate(captured_, temporary_bytes), used);
  void* const fresh = pool_->allocate(captured_, temporary_bytes);
  EXPECT_EQ(pool_->pool_size(), 3 * temporary_bytes);
  const CUgraphExec second = end_and_instantiate();
  end_capture_into(0, ours);
  for (void* const block : {used, freed, fresh}) pool_->deallocate(eager_, block, temporary_bytes);
  for (const CUgraphExec each : {first, second}) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 2; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, may_be_launched_in_any_order_and_leave_their_output_until_the_next) {
  std::vector<CUgraphExec> graphs;
  std::vector<void*> outputs;
  for (unsigned char value = 0; value < 4; ++value) {
    begin_capture_into(0, ours, captured_);
    begin();
    void* const temporary = pool_->allocate(captured_, temporary_bytes);
    fill_async(temporary, value, temporary_bytes, captured_, 0);
    outputs.push_back(pool_->allocate(captured_, MiB));
    copy_async(outputs.back(), temporary, MiB, captured_, 0);
    pool_->deallocate(captured_, temporary, temporary_bytes);
    graphs.push_back(end_and_instantiate());
    end_capture_into(0, ours);
  }
  EXPECT_LE(pool_->pool_size(), 2 * temporary_bytes);
  for (const std::size_t which : {0, 1, 2, 3, 0, 3, 2, 1, 1}) {
    launch(graphs[which]);
    synchronize(captured_, 0);
    EXPECT_TRUE(holds(outputs[which], static_cast<unsigned char>(which), MiB));
  }
  for (void* const block : outputs) pool_->deallocate(eager_, block, MiB);
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 4; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, share_branch_by_branch_over_pauses_too) {
  std::vector<CUgraphExec> graphs;
  const cuda_stream side(0, cuda_stream::kind::non_blocking);
  for (int i = 0; i < 3; ++i) {
    begin_capture_into(0, ours, captured_);
    begin();
    order_after(side, captured_, 0);
    for (const stream_ref stream : {captured_, side.view()}) {
      void* const block = pool_->allocate(stream, temporary_bytes);
      fill_async(block, 1, temporary_bytes, stream, 0);
      pool_->deallocate(stream, block, temporary_bytes);
    }
    order_after(captured_, side, 0);
    graphs.push_back(end_and_instantiate());
    end_capture_into(0, ours);
    EXPECT_EQ(pool_->pool_size(), 2 * temporary_bytes);
    pool_->pause("nothing");
    pool_->resume();
  }
  for (const CUgraphExec each : graphs) launch(each);
  synchronize(captured_, 0);
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, that_are_abandoned_leave_nothing_behind) {
  for (int i = 0; i < 3; ++i) {
    begin_capture_into(0, ours, captured_);
    begin();
    void* const block = pool_->allocate(captured_, temporary_bytes);
    EXPECT_EQ(cuGraphDestroy(end()), CUDA_SUCCESS);
    end_capture_into(0, ours);
    pool_->deallocate(eager_, block, temporary_bytes);
  }
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, give_no_branch_what_another_one_of_the_same_capture_has_freed) {
  begin_capture_into(0, ours, captured_);
  begin();
  void* const kept = pool_->allocate(captured_, temporary_bytes);
  const CUgraph first = end();
  end_capture_into(0, ours);
  const cuda_stream origin(0, cuda_stream::kind::non_blocking);
  begin_capture_into(0, ours, origin);
  ASSERT_EQ(cuStreamBeginCapture(origin.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  order_after(captured_, origin, 0);
  fill_async(kept, 1, temporary_bytes, origin, 0);
  pool_->deallocate(origin, kept, temporary_bytes);
  void* const of_the_branch = pool_->allocate(captured_, temporary_bytes);  // which waits for nothing of the origin's
  EXPECT_NE(of_the_branch, kept);
  order_after(origin, captured_, 0);
  CUgraph second = nullptr;
  ASSERT_EQ(cuStreamEndCapture(origin.value(), &second), CUDA_SUCCESS);
  end_capture_into(0, ours);
  begin_capture_into(0, ours, captured_);
  begin();
  EXPECT_EQ(pool_->allocate(captured_, temporary_bytes), kept) << "a later graph may";
  const CUgraph third = end();
  end_capture_into(0, ours);
  for (void* const block : {kept, of_the_branch}) pool_->deallocate(eager_, block, temporary_bytes);
  for (const CUgraph each : {first, second, third}) EXPECT_EQ(cuGraphDestroy(each), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, take_no_capture_of_another_threads_own_default_stream) {
  const stream_ref own = per_thread_default_stream();
  begin_capture_into(0, ours, own);
  std::vector<CUgraph> graphs;
  std::thread([&] {
    const device_scope scope(0);
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(cuStreamBeginCapture(own.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
      pool_->deallocate(own, pool_->allocate(own, temporary_bytes), temporary_bytes);
      ASSERT_EQ(cuStreamEndCapture(own.value(), &graphs.emplace_back()), CUDA_SUCCESS);
    }
  }).join();
  EXPECT_EQ(pool_->pool_size(), 2 * temporary_bytes);
  end_capture_into(0, ours);
  release_graph_pool(0, ours);
  for (const CUgraph each : graphs) EXPECT_EQ(cuGraphDestroy(each), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, have_memory_of_their_own_where_a_filter_throws) {
  void* const block = pool_->allocate(eager_, temporary_bytes);
  synchronize(eager_, 0);
  {
    captured_stderr reported;
    begin_capture_into(0, ours, graph_pool::filter([](stream_ref) -> bool { throw std::runtime_error("no idea"); }));
    begin();
    pool_->deallocate(captured_, block, temporary_bytes);
    EXPECT_EQ(cuGraphDestroy(end()), CUDA_SUCCESS);
    end_capture_into(0, ours);
    EXPECT_NE(reported.text().find("a capture has memory of its own"), std::string::npos) << reported.text();
  }
  release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, may_be_closed_and_opened_again_within_a_capture) {
  begin_capture_into(0, ours, captured_);
  begin();
  void* const first = pool_->allocate(captured_, temporary_bytes);
  EXPECT_TRUE(is_capture_announced(0));
  end_capture_into(0, ours);
  EXPECT_FALSE(is_capture_announced(0));
  begin_capture_into(0, ours, captured_);
  do_after_captures(0, [] {
    synchronize_device(0);  // would end the capture
    return true;
  });
  end_capture_into(0, ours);
  begin_capture_into(0, ours, captured_);
  const CUgraph graph = end();
  end_capture_into(0, ours);
  pool_->deallocate(eager_, first, temporary_bytes);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, that_were_invalidated_leave_nothing_behind) {
  void* const kept = pool_->allocate(eager_, 256);
  synchronize(eager_, 0);
  begin_capture_into(0, ours, captured_);
  begin();
  void* const block = pool_->allocate(captured_, temporary_bytes);
  unsigned long long id = 0;
  EXPECT_NE(cuStreamGetId(captured_.value(), &id), CUDA_SUCCESS);
  pool_->deallocate(captured_, block, temporary_bytes);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(captured_.value(), &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  simulator()->clear_violations();  // that was one
  end_capture_into(0, ours);
  const CUgraphExec later = graph_in(ours, kept, 1);
  launch(later);
  EXPECT_TRUE((synchronize(captured_, 0), holds(kept, 1, 256)));
  EXPECT_EQ(cuGraphExecDestroy(later), CUDA_SUCCESS);
  for (int i = 0; i < 2; ++i) release_graph_pool(0, ours);
  pool_->deallocate(eager_, kept, 256);
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

TEST_F(graphs_of_a_pool, are_known_by_their_capture_whichever_thread_asks_first) {
  const auto allocate_and_free = [&] {
    pool_->deallocate(captured_, pool_->allocate(captured_, temporary_bytes), temporary_bytes);
  };
  std::vector<CUgraphExec> graphs;
  for (int i = 0; i < 2; ++i) {
    begin_capture_into(0, ours, captured_);
    begin();
    std::thread(allocate_and_free).join();  // as a thread of autograd's
    graphs.push_back(end_and_instantiate());
    end_capture_into(0, ours);
  }
  EXPECT_EQ(pool_->pool_size(), temporary_bytes);
  std::thread other([&] {  // has another pool open meanwhile, and a capture in none
    const cuda_stream stream(0, cuda_stream::kind::non_blocking);
    const cuda_stream unrelated(0, cuda_stream::kind::non_blocking);
    begin_capture_into(0, {9, 9}, unrelated);
    begin_capture_into(0, ours, captured_);
    begin();
    allocate_and_free();
    graphs.push_back(end_and_instantiate());
    EXPECT_EQ(pool_->pool_size(), temporary_bytes);
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
      pool_->deallocate(stream, pool_->allocate(stream, temporary_bytes), temporary_bytes);
      CUgraph graph = nullptr;
      ASSERT_EQ(cuStreamEndCapture(stream.value(), &graph), CUDA_SUCCESS);
      graphs.push_back(nullptr);
      const device_scope scope(0);
      ASSERT_EQ(cuGraphInstantiate(&graphs.back(), graph, 0), CUDA_SUCCESS);
      ASSERT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
    }
    EXPECT_EQ(pool_->pool_size(), 3 * temporary_bytes) << "each of their own";
    end_capture_into(0, ours);
    end_capture_into(0, {9, 9});
  });
  other.join();
  release_graph_pool(0, {9, 9});
  for (int i = 0; i < 3; ++i) release_graph_pool(0, ours);
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, are_captured_by_several_threads_at_once) {
  constexpr unsigned threads = 4;
  std::vector<std::vector<CUgraph>> graphs(threads);
  std::vector<std::unique_ptr<cuda_stream>> streams;
  std::vector<std::thread> all;
  for (unsigned number = 0; number < threads; ++number) {
    streams.push_back(std::make_unique<cuda_stream>(0, cuda_stream::kind::non_blocking));
    all.emplace_back([this, number, &stream = *streams.back(), &own = graphs[number]] {
      const graph_pool::number which{100 + number % 2, 0};  // two threads have one pool
      for (int i = 0; i < 50; ++i) {
        begin_capture_into(0, which, stream);
        EXPECT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
        void* const block = pool_->allocate(stream, temporary_bytes);
        fill_async(block, 1, temporary_bytes, stream, 0);
        pool_->deallocate(stream, block, temporary_bytes);
        EXPECT_EQ(cuStreamEndCapture(stream.value(), &own.emplace_back()), CUDA_SUCCESS);
        end_capture_into(0, which);
      }
    });
  }
  for (std::thread& each : all) each.join();
  EXPECT_EQ(pool_->pool_size(), threads * temporary_bytes) << "one for each stream";
  for (const auto& own : graphs) {
    for (const CUgraph each : own) EXPECT_EQ(cuGraphDestroy(each), CUDA_SUCCESS);
  }
  for (unsigned i = 0; i < 50 * threads; ++i) release_graph_pool(0, {100 + i % 2, 0});
  EXPECT_EQ(bytes_after_trim(), 0u);
}

TEST_F(graphs_of_a_pool, refuse_what_makes_no_sense_and_change_nothing) {
  EXPECT_THROW(end_capture_into(0, ours), std::invalid_argument);
  EXPECT_THROW(release_graph_pool(0, ours), std::invalid_argument);
  EXPECT_THROW(release_graph_pool(99, ours), std::invalid_argument);
  EXPECT_THROW(begin_capture_into(99, ours, captured_), std::out_of_range);
  begin_capture_into(0, ours, captured_);
  EXPECT_THROW(end_capture_into(0, {1, 7}), std::invalid_argument);
  end_capture_into(0, ours);
  EXPECT_THROW(end_capture_into(0, ours), std::invalid_argument);
  release_graph_pool(0, ours);
  EXPECT_THROW(release_graph_pool(0, ours), std::invalid_argument);
}

TEST_F(graphs_of_a_pool, are_there_in_c) {
  struct program {
    stream_ref mine;
    int questions = 0;
    int drops = 0;
  } with{captured_};
  const auto takes = [](void* data, void* stream) -> int {
    auto& asked = *static_cast<program*>(data);
    ++asked.questions;
    return stream == asked.mine.value() ? 1 : 0;
  };
  const auto drop = [](void* data) { ++static_cast<program*>(data)->drops; };
  std::vector<CUgraphExec> graphs;
  for (const bool by_stream : {true, false}) {
    ASSERT_EQ(by_stream ? cenote_graph_pool_begin(0, 7, 1, captured_.value())
                        : cenote_graph_pool_begin_if(0, 7, 1, takes, &with, drop),
              CENOTE_OK);
    begin();
    pool_->deallocate(captured_, pool_->allocate(captured_, temporary_bytes), temporary_bytes);
    graphs.push_back(end_and_instantiate());
    EXPECT_EQ(with.drops, 0);
    EXPECT_EQ(cenote_graph_pool_end(0, 7, 1), CENOTE_OK);
  }
  EXPECT_EQ(pool_->pool_size(), temporary_bytes);
  EXPECT_EQ(with.questions, 1);
  EXPECT_EQ(with.drops, 1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(cenote_graph_pool_release(0, 7, 1), CENOTE_OK);
  EXPECT_EQ(cenote_graph_pool_release(0, 7, 1), CENOTE_INVALID_ARGUMENT);
  EXPECT_STREQ(cenote_last_error(),
               "the pool of graphs 7, 1 of device 0 is not known, or was released as often as it was begun");
  EXPECT_EQ(cenote_graph_pool_begin(-1, 7, 1, nullptr), CENOTE_OUT_OF_RANGE);
  EXPECT_EQ(cenote_graph_pool_begin_if(-1, 7, 1, takes, &with, drop), CENOTE_OUT_OF_RANGE);
  EXPECT_EQ(cenote_graph_pool_begin_if(0, 7, 1, nullptr, &with, drop), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(with.drops, 1) << "it is the caller's where nothing began";
  for (const CUgraphExec each : graphs) EXPECT_EQ(cuGraphExecDestroy(each), CUDA_SUCCESS);
}

}  // namespace
}  // namespace cenote::test
