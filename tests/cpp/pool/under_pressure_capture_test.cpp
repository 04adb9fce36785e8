// Blocks that were freed under pressure, beside a capture: the graph gets none whose work is not done, and they are not
// lost.
#include <cuda.h>

#include "support/pool_under_pressure.hpp"

namespace cenote::test {
namespace {

/// A capture in the strictest mode, of a stream that the legacy default stream waits for.
class pool_under_pressure_beside_a_capture : public pool_under_pressure {
 public:
  void SetUp() override {
    pool_under_pressure::SetUp();
    captured_.emplace(0);
  }

  void TearDown() override {
    captured_.reset();
    pool_under_pressure::TearDown();
  }

  void begin() { ASSERT_EQ(cuStreamBeginCapture(captured(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS); }

  void end() {
    CUgraph graph = nullptr;
    ASSERT_EQ(cuStreamEndCapture(captured(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
    cuGraphDestroy(graph);
  }

  CUstream captured() const { return captured_->value(); }

  std::optional<cuda_stream> captured_;
};

TEST_F(pool_under_pressure_beside_a_capture, are_not_given_to_it_before_the_work_on_them_is_done) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  begin();
  EXPECT_EQ(pool_->try_allocate(captured(), block_bytes), nullptr);
  end();
  ASSERT_EQ(pool_->allocate(b(), block_bytes), block) << "nothing was lost";
  EXPECT_EQ(waits(), 1u);
  expect_handed_over(b(), block);
  blocks_.push_back(block);
}

TEST_F(pool_under_pressure_beside_a_capture, are_given_to_it_once_the_work_on_them_is_done) {
  void* const block = take_one_out();
  pool_->deallocate(a(), block, block_bytes);
  synchronize(a(), 0);
  begin();
  EXPECT_EQ(pool_->try_allocate(captured(), block_bytes), block);
  end();
  EXPECT_EQ(waits(), 0u);
  pool_->deallocate(captured(), block, block_bytes);
}

TEST_F(pool_under_pressure_beside_a_capture, hold_nothing_that_the_graph_uses) {
  void* const block = take_one_out();
  pool_->deallocate(a(), block, block_bytes);
  synchronize(a(), 0);
  begin();
  ASSERT_EQ(pool_->try_allocate(captured(), block_bytes), block);
  end();
  pool_->deallocate(a(), block, block_bytes);
  for (const stream_ref stream : {a(), b()}) EXPECT_EQ(pool_->try_allocate(stream, block_bytes), nullptr);
}

TEST_F(pool_under_pressure_beside_a_capture, are_kept_for_later_where_the_legacy_default_stream_may_not_wait) {
  void* const block = take_one_out();
  use_and_free(a(), block);
  const auto before = pool_->counters();
  begin();
  EXPECT_EQ(pool_->try_allocate({}, block_bytes), nullptr);
  end();
  EXPECT_EQ(pool_->counters().allocations, before.allocations);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream);
  ASSERT_EQ(pool_->allocate({}, block_bytes), block);
  EXPECT_EQ(waits(), 1u);
  expect_handed_over({}, block);
  blocks_.push_back(block);
}

TEST_F(pool_under_pressure_beside_a_capture, are_not_marked_where_the_legacy_default_stream_may_not_be_named) {
  void* const block = take_one_out();
  void* const earlier = take_one_out();
  pool_->deallocate({}, earlier, block_bytes);  // the pool has met the stream
  begin();
  pool_->deallocate({}, block, block_bytes);
  end();
  EXPECT_EQ(free_in_heap(), 2 * block_bytes);
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  blocks_.push_back(pool_->allocate(b(), block_bytes));
  EXPECT_EQ(from_reclaim(), 1u) << "one has no event";
}

}  // namespace
}  // namespace cenote::test
