// What a pool that may grow does before it grows, where most of it would stay free: it joins the pieces that several
// streams have freed, after what was freed and no more, or else reclaims.
#include <cuda.h>

#include "cenote/driver/capture.hpp"
#include "support/hand_over.hpp"
#include "support/pool_of_streams.hpp"

namespace cenote::test {
namespace {

class pool_that_may_grow : public pool_streams {
 public:
  std::size_t maximum() const override { return 4 * pool_bytes; }
};

/// Three pieces that lie beside each other: A has freed the outer ones, B the one between them.
class pool_in_pieces : public pool_that_may_grow {
 public:
  static constexpr std::size_t outer_bytes = 10 * unit, inner_bytes = 11 * unit;
  static constexpr std::size_t wanted_bytes = 15 * unit;  // with what is in use, half of the pool

  void SetUp() override {
    pool_that_may_grow::SetUp();
    witness_ = device_allocate(0, outer_bytes);
    void* const first = pool_->allocate(a(), outer_bytes);
    void* const inner = pool_->allocate(b(), inner_bytes);
    void* const last = pool_->allocate(a(), outer_bytes);
    fill_async(first, 0xAA, outer_bytes, a(), 0);
    for (int i = 0; i < 16; ++i) copy_async(witness_, first, outer_bytes, a(), 0);  // asking an event does not do it
    pool_->deallocate(a(), first, outer_bytes);
    pool_->deallocate(a(), last, outer_bytes);
    pool_->deallocate(b(), inner, inner_bytes);
    before_ = pool_->counters();
  }

  void TearDown() override {
    device_free(0, witness_);
    pool_that_may_grow::TearDown();
  }

  /// What becomes of the block once B has overwritten it; the witness has A's last word on the first piece.
  void expect_handed_over(void* joined) const {
    fill_async(joined, 0xBB, wanted_bytes, b(), 0);
    synchronize(b(), 0);
    cenote_sim_drain();
    EXPECT_TRUE(all_are(read(witness_, outer_bytes, b()), 0xAA)) << "A was not done";
    EXPECT_TRUE(all_are(read(joined, wanted_bytes, b()), 0xBB)) << "A's work came last";
  }

  std::uint64_t waits() const { return pool_->counters().waits - before_.waits; }
  std::uint64_t growths() const { return pool_->counters().upstream_allocations - before_.upstream_allocations; }

  void* witness_ = nullptr;
  pool_counters before_;
};

TEST_F(pool_in_pieces, joins_them_after_the_work_of_those_who_freed_them) {
  const call_count host_waits("cuStreamSynchronize");
  void* const joined = pool_->allocate(b(), wanted_bytes);
  EXPECT_EQ(host_waits.value(), 0) << "the device waits, the host does not";
  EXPECT_EQ(waits(), 1u) << "for A; B need not wait for itself";
  EXPECT_EQ(growths(), 0u);
  expect_handed_over(joined);
  pool_->deallocate(b(), joined, wanted_bytes);
}

/// The legacy default stream may not be given work, not even a wait, while a blocking stream is being captured.
TEST_F(pool_in_pieces, grows_for_a_stream_that_may_not_wait) {
  const cuda_stream captured(0);
  ASSERT_EQ(cuStreamBeginCapture(captured.view().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  void* const fresh = pool_->allocate({}, wanted_bytes);
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamEndCapture(captured.view().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  EXPECT_EQ(growths(), 1u);
  EXPECT_EQ(waits(), 0u);
  pool_->deallocate({}, fresh, wanted_bytes);
}

TEST_F(pool_in_pieces, grows_where_little_would_stay_free) {
  const std::size_t more_bytes = wanted_bytes + unit;
  void* const fresh = pool_->allocate(b(), more_bytes);
  EXPECT_EQ(growths(), 1u);
  EXPECT_EQ(waits(), 0u);
  pool_->deallocate(b(), fresh, more_bytes);
}

TEST_F(pool_that_may_grow, reclaims_before_what_no_mark_covers) {
  constexpr std::size_t small_bytes = unit / 4, large_bytes = 14 * unit, other_bytes = 8 * unit;
  // From the top: a large piece with a small one at its end, and another piece; what is left over below is smaller.
  void* const large = pool_->allocate(a(), large_bytes);
  void* const end = pool_->allocate(a(), small_bytes);
  void* const border = pool_->allocate(a(), small_bytes);
  void* const other = pool_->allocate(a(), other_bytes);
  void* const last_border = pool_->allocate(a(), small_bytes);
  for (int i = 0; i < 16; ++i) fill_async(large, 0xAA, large_bytes, a(), 0);  // asking an event does not do it
  pool_->deallocate(a(), large, large_bytes);
  pool_->deallocate(a(), other, other_bytes);
  pool_->deallocate(a(), end, small_bytes);  // not worth a mark, and merged with the large one
  const auto before = pool_->counters();
  void* const reclaimed = pool_->allocate(b(), large_bytes);
  EXPECT_EQ(pool_->counters().from_reclaim, before.from_reclaim + 1);
  EXPECT_EQ(pool_->counters().upstream_allocations, before.upstream_allocations);
  fill_async(reclaimed, 0xBB, large_bytes, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(reclaimed, large_bytes, b()), 0xBB)) << "A's work came last";
  pool_->deallocate(b(), reclaimed, large_bytes);
  pool_->deallocate(a(), border, small_bytes);
  pool_->deallocate(a(), last_border, small_bytes);
}

}  // namespace
}  // namespace cenote::test
