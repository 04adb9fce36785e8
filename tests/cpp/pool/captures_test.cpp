// The pool while a stream is being captured into a graph: the capture stays valid, and a block that the graph will use
// again is never anybody else's.
#include <set>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

/// A capture in the strictest mode.
class capture {
 public:
  explicit capture(stream_ref stream) : stream_(stream) {
    EXPECT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  }

  ~capture() {
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(stream_.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
    if (graph != nullptr) cuGraphDestroy(graph);
  }

 private:
  stream_ref stream_;
};

class pool_capture : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    captured_.emplace(0);
    other_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    captured_.reset();
    other_.reset();
    simulated_device::TearDown();
  }

  stream_ref captured() const { return captured_->view(); }
  stream_ref other() const { return other_->view(); }

  std::optional<cuda_stream> captured_;
  std::optional<cuda_stream> other_;
};

/// Over each upstream that gives memory in a way of its own.
class pool_capture_over : public pool_capture, public testing::WithParamInterface<const char*> {};

TEST_P(pool_capture_over, allocating_and_freeing_leave_the_capture_valid) {
  const auto resource = make_resource(GetParam(), 0);
  void* const before = resource->allocate(captured(), 1 * MiB);
  resource->deallocate(captured(), before, 1 * MiB);
  void* from_ready = nullptr;
  void* from_upstream = nullptr;
  {
    const capture underway(captured());
    from_ready = resource->allocate(captured(), 512 * KiB);
    from_upstream = resource->allocate(captured(), 24 * MiB);  // the pool grows
    fill_async(from_ready, 1, 512 * KiB, captured(), 0);
    fill_async(from_upstream, 1, 24 * MiB, captured(), 0);
    resource->deallocate(captured(), from_ready, 512 * KiB);
    EXPECT_EQ(resource->allocate(captured(), 512 * KiB), from_ready) << "a block is reused within its capture";
    resource->check();
  }
  resource->deallocate(captured(), from_ready, 512 * KiB);
  resource->deallocate(captured(), from_upstream, 24 * MiB);
  resource->check();
}

TEST_P(pool_capture_over, running_out_leaves_the_capture_valid) {
  const auto resource = make_resource(GetParam(), 0);
  void* const before = resource->allocate(captured(), 4 * MiB);
  {
    const capture underway(captured());
    EXPECT_EQ(resource->try_allocate(captured(), 10 * GiB), nullptr);
    EXPECT_EQ(resource->try_allocate(captured(), 61 * MiB), nullptr);
  }
  resource->deallocate(captured(), before, 4 * MiB);
}

TEST_P(pool_capture_over, making_room_leaves_the_capture_valid) {
  const auto resource = make_resource(GetParam(), 0);
  void* block = nullptr;
  {
    const capture underway(captured());
    block = resource->allocate(captured(), 64 * MiB);  // the maximum: the initial chunk has to go
    resource->check();
  }
  resource->deallocate(captured(), block, 64 * MiB);
}

TEST_P(pool_capture_over, other_streams_go_on_beside_the_capture) {
  const auto resource = make_resource(GetParam(), 0);
  void* const held = resource->allocate(captured(), 4 * MiB);
  void* const warm = resource->allocate(other(), 4 * MiB);
  resource->deallocate(other(), warm, 4 * MiB);
  {
    const capture underway(captured());
    std::vector<void*> blocks;
    for (int i = 0; i < 8; ++i) blocks.push_back(resource->allocate(other(), 4 * MiB));
    for (void* const block : blocks) resource->deallocate(other(), block, 4 * MiB);
  }
  resource->deallocate(captured(), held, 4 * MiB);
}

INSTANTIATE_TEST_SUITE_P(upstreams, pool_capture_over,
                         testing::Values("pool:initial=16MiB,max=64MiB | cuda", "pool:initial=16MiB,max=64MiB | async",
                                         "pool:initial=16MiB,max=64MiB | managed",
                                         "pool:initial=16MiB,max=64MiB | pinned",
                                         "pool:initial=16MiB,max=64MiB | pool:initial=0 | cuda",
                                         "pool:initial=16MiB,max=64MiB | pool:initial=0 | async"),
                         [](const auto& tested) { return "number_" + std::to_string(tested.index); });

TEST_F(pool_capture, a_captured_block_is_never_handed_to_others) {
  const auto resource =
      std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 8 * MiB, 8 * MiB);
  std::set<void*> of_the_graph;
  {
    const capture underway(captured());
    for (int i = 0; i < 16; ++i) of_the_graph.insert(resource->allocate(captured(), 64 * KiB));
  }
  for (void* const block : of_the_graph) resource->deallocate(other(), block, 64 * KiB);
  EXPECT_EQ(resource->state().in_use, 0u);
  for (const stream_ref stream : {captured(), other(), stream_ref{}}) {
    std::vector<void*> blocks;
    while (void* const block = resource->try_allocate(stream, 64 * KiB)) {
      EXPECT_FALSE(of_the_graph.contains(block)) << "the graph uses it whenever it is launched";
      blocks.push_back(block);
    }
    EXPECT_EQ(blocks.size(), 8 * MiB / (64 * KiB) - of_the_graph.size());
    for (void* const block : blocks) resource->deallocate(stream, block, 64 * KiB);
  }
  EXPECT_EQ(resource->trim(), 0u) << "the chunk is the graph's";
  resource->check();
}

TEST_F(pool_capture, a_later_capture_gets_nothing_of_an_earlier_one) {
  const auto resource =
      std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 8 * MiB, 8 * MiB);
  void* first = nullptr;
  void* second = nullptr;
  {
    const capture underway(captured());
    first = resource->allocate(captured(), 1 * MiB);
    resource->deallocate(captured(), first, 1 * MiB);
  }
  {
    const capture underway(captured());
    second = resource->allocate(captured(), 1 * MiB);
    EXPECT_NE(second, first);
  }
  resource->deallocate(captured(), second, 1 * MiB);
}

TEST_F(pool_capture, a_block_from_before_that_is_freed_in_a_capture_is_kept_from_others) {
  const auto resource =
      std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 8 * MiB, 8 * MiB);
  void* const block = resource->allocate(captured(), 8 * MiB);
  const capture underway(captured());
  fill_async(block, 1, 8 * MiB, captured(), 0);  // the graph uses it
  resource->deallocate(captured(), block, 8 * MiB);
  EXPECT_EQ(resource->allocate(captured(), 8 * MiB), block);
  resource->deallocate(captured(), block, 8 * MiB);
}

TEST_F(pool_capture, freeing_on_the_legacy_stream_leaves_the_capture_of_a_blocking_stream_valid) {
  const auto resource = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 32 * MiB);
  void* const block = resource->allocate({}, 16 * MiB);  // worth a mark when it is freed
  void* const introduction = resource->allocate(other(), 256);
  {
    const capture underway(captured());
    resource->deallocate({}, block, 16 * MiB);  // as a garbage collector does at any time
  }
  resource->deallocate(other(), introduction, 256);
}

TEST_F(pool_capture, a_branch_of_a_capture_gets_nothing_of_another_branch) {
  const auto pool = make_resource("pool:initial=4MiB | cuda", 0);
  const cuda_stream branch(0, cuda_stream::kind::non_blocking);
  const capture underway(captured());
  const auto fork = event::record(captured(), 0);
  wait(branch.view(), *fork, 0);
  void* const block = pool->allocate(captured(), 1 * MiB);
  pool->deallocate(captured(), block, 1 * MiB);
  EXPECT_NE(pool->allocate(branch.view(), 1 * MiB), block) << "nothing orders the branches";
  EXPECT_EQ(pool->allocate(captured(), 1 * MiB), block);
  const auto joined = event::record(branch.view(), 0);
  wait(captured(), *joined, 0);
}

TEST_F(pool_capture, running_out_beside_an_announced_capture_is_out_of_memory_and_leaves_it_valid) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  const cuda_stream third(0, cuda_stream::kind::non_blocking);
  void* const block = pool->allocate(third.view(), 4 * MiB);
  pool->deallocate(third.view(), block, 4 * MiB);
  {
    capture_begins(0);
    const capture underway(captured());
    EXPECT_EQ(pool->try_allocate(other(), 4 * MiB), nullptr) << "only an event over the context could order it";
    EXPECT_EQ(pool->trim(), 0u);
  }
  capture_ended(0);
  EXPECT_EQ(pool->allocate(other(), 4 * MiB), block);
  pool->check();
}

/// The pool forgets streams that have nothing free, but not one that a captured block must go back to.
TEST_F(pool_capture, a_captured_block_is_its_captures_also_after_streams_were_forgotten) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  void* rest = nullptr;
  {
    capture_begins(0);
    const capture underway(captured());
    void* const block = pool->allocate(captured(), 1 * MiB);
    rest = pool->allocate(other(), 3 * MiB);
    EXPECT_EQ(pool->try_allocate(other(), 1 * MiB), nullptr) << "which makes the pool forget";
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    EXPECT_EQ(pool->try_allocate(passing.view(), 1 * MiB), nullptr) << "which makes the pool meet it";
    pool->deallocate(captured(), block, 1 * MiB);
    EXPECT_EQ(pool->try_allocate(passing.view(), 1 * MiB), nullptr) << "the graph uses it";
    EXPECT_EQ(pool->try_allocate(captured(), 1 * MiB), block);
    pool->check();
  }
  capture_ended(0);
  pool->deallocate(other(), rest, 3 * MiB);
}

TEST_F(pool_capture, a_free_in_a_capture_records_no_event) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  void* const of_another = pool->allocate(other(), 1 * MiB);
  void* const from_before = pool->allocate(captured(), 1 * MiB);
  {
    const capture underway(captured());
    const call_count records("cuEventRecord");
    pool->deallocate(captured(), from_before, 1 * MiB);
    EXPECT_EQ(records.value(), 0) << "outside, a free of that size is worth one";
  }
  pool->deallocate(other(), of_another, 1 * MiB);
}

/// The chunk came through a stream of the pool's own, which was waited for: also for what had used the memory before.
TEST_F(pool_capture, a_free_in_a_capture_asks_once_who_frees) {
  const foreign_stream stream;
  const auto pool = make_resource("pool", 0);
  const capture during(stream.view());
  void* const block = pool->allocate(stream.view(), 4 * KiB);
  const call_count asked("cuStreamGetCaptureInfo");
  pool->deallocate(stream.view(), block, 4 * KiB);
  EXPECT_EQ(asked.value(), 1);
}

TEST_F(pool_capture, what_is_left_of_a_chunk_that_a_capture_made_the_pool_grow_by_is_everybodys) {
  const auto upstream =
      std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 4 * MiB, 4 * MiB);
  pool_memory_resource pool(upstream, 0);
  const cuda_stream former(0, cuda_stream::kind::non_blocking);
  void* const of_another = upstream->allocate(other(), 1 * MiB);
  void* const used = upstream->allocate(former.view(), 3 * MiB);
  for (int i = 0; i < 16; ++i) fill_async(used, 0xAA, 3 * MiB, former.view(), 0);
  upstream->deallocate(former.view(), used, 3 * MiB);
  void* outside = nullptr;
  {
    const capture underway(captured());
    pool.deallocate(captured(), pool.allocate(captured(), 1 * MiB), 1 * MiB);
    outside = pool.allocate(other(), 1 * MiB);
    fill_async(outside, 0xBB, 1 * MiB, other(), 0);
  }
  EXPECT_EQ(pool.counters().upstream_allocations, 1u);
  EXPECT_EQ(pool.counters().waits, 0u);
  synchronize(other(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(outside, 1 * MiB, other()), 0xBB)) << "the former work came last";
  pool.deallocate(other(), outside, 1 * MiB);
  upstream->deallocate(other(), of_another, 1 * MiB);
}

TEST_F(pool_capture, the_end_of_a_pool_beside_an_announced_capture_leaves_it_valid_and_gives_its_memory_back_after) {
  auto pool = make_resource("pool:initial=4MiB | cuda", 0);
  const std::size_t free_before = device_memory_info(0).free_bytes;
  captured_stderr said;
  capture_begins(0);
  {
    const capture underway(captured());
    pool.reset();
    EXPECT_EQ(device_memory_info(0).free_bytes, free_before);
  }
  capture_ended(0);
  EXPECT_EQ(device_memory_info(0).free_bytes, free_before + 4 * MiB);
  EXPECT_EQ(said.text(), "");
}

TEST_F(pool_capture,
       the_end_of_a_pool_beside_a_blocking_streams_capture_leaves_it_valid_and_gives_its_memory_back_after) {
  auto pool = make_resource("pool:initial=4MiB | cuda", 0);
  auto later = make_resource("pool:initial=4MiB | cuda", 0);
  const std::size_t free_before = device_memory_info(0).free_bytes;
  {
    const capture underway(captured());  // which nobody announced
    pool.reset();
    EXPECT_EQ(device_memory_info(0).free_bytes, free_before);
  }
  later.reset();
  EXPECT_EQ(device_memory_info(0).free_bytes, free_before + 8 * MiB);
}

TEST_F(pool_capture, a_captured_block_freed_on_another_branch_is_given_to_nobody) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  const cuda_stream branch(0, cuda_stream::kind::non_blocking);
  void* block = nullptr;
  {
    const capture underway(captured());
    block = pool->allocate(captured(), 1 * MiB);
    wait(branch.view(), *event::record(captured(), 0), 0);
    fill_async(block, 1, 1 * MiB, branch.view(), 0);
    pool->deallocate(branch.view(), block, 1 * MiB);
    EXPECT_NE(pool->allocate(captured(), 1 * MiB), block) << "nothing orders the stream after its branch";
    EXPECT_NE(pool->allocate(branch.view(), 1 * MiB), block);
    wait(captured(), *event::record(branch.view(), 0), 0);
  }
  EXPECT_NE(pool->try_allocate(other(), 1 * MiB), block);
  pool->check();
}

TEST_F(pool_capture, allocating_on_the_legacy_stream_leaves_the_capture_of_a_blocking_stream_valid) {
  const auto pool = make_resource("pool:initial=4MiB | cuda", 0);
  void* const block = pool->allocate(other(), 4 * MiB);
  fill_async(block, 1, 4 * MiB, other(), 0);
  pool->deallocate(other(), block, 4 * MiB);
  const cuda_stream blocking(0);
  const capture underway(blocking.view());
  EXPECT_NE(pool->allocate({}, 4 * MiB), block) << "the legacy stream could not wait for it";
}

/// A capture that a mistake of the program has ended; the program goes on without a graph.
class invalidated_capture {
 public:
  explicit invalidated_capture(stream_ref stream) : stream_(stream) {
    EXPECT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamSynchronize(stream.value()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    cenote_sim_clear_violations();
  }
  ~invalidated_capture() {
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(stream_.value(), &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    cenote_sim_clear_violations();
  }

 private:
  stream_ref stream_;
};

TEST_F(pool_capture, that_was_invalidated_makes_a_stream_nobody_and_another_each_time) {
  const invalidated_capture broken(captured());
  const stream_id once = identify(captured(), 0);
  const stream_id again = identify(captured(), 0);
  EXPECT_TRUE(once.is_capturing() && once.is_nobody());
  EXPECT_NE(once, again);
}

/// Whatever handles the two streams have.
TEST_F(pool_capture, that_was_invalidated_gives_nothing_to_a_later_one_without_order) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  std::optional<foreign_stream> earlier(std::in_place);
  void* const used = pool->allocate(earlier->view(), 1 * MiB);
  fill_async(used, 0xAA, 1 * MiB, earlier->view(), 0);
  {
    const invalidated_capture broken(earlier->view());
    pool->deallocate(earlier->view(), used, 1 * MiB);
    EXPECT_NE(pool->allocate(earlier->view(), 1 * MiB), used) << "which is out of use, and known to nobody";
  }
  earlier.reset();
  const foreign_stream later;
  void* block = nullptr;
  {
    const invalidated_capture broken(later.view());
    block = pool->allocate(later.view(), 1 * MiB);
  }
  fill_async(block, 0xBB, 1 * MiB, later.view(), 0);
  synchronize(later.view(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(block, 1 * MiB, later.view()), 0xBB)) << "the earlier stream's work came last";
  pool->deallocate(later.view(), block, 1 * MiB);
}

TEST_F(pool_capture, that_was_invalidated_keeps_no_block_for_ever) {
  const auto pool = make_resource("pool:initial=4MiB,max=4MiB | cuda", 0);
  void* const from_before = pool->allocate(captured(), 1 * MiB);
  void* of_it = nullptr;
  {
    const invalidated_capture broken(captured());
    pool->deallocate(captured(), from_before, 1 * MiB);
    of_it = pool->allocate(captured(), 2 * MiB);
  }
  pool->deallocate(captured(), of_it, 2 * MiB);
  void* const whole = pool->allocate(other(), 4 * MiB);  // after all work of the device
  pool->deallocate(other(), whole, 4 * MiB);
}

}  // namespace
}  // namespace cenote::test
