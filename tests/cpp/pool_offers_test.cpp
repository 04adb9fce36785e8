// Blocks on offer: under pressure what one stream frees waits, with an event of its own, for whoever asks for that
// size. Work runs only when something waits for it, so an order that is missing shows as wrong bytes.
#include <set>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "hand_over.hpp"

namespace cenote::test {
namespace {

/// All of the pool is in use, in equal blocks of stream A, and B has gone without once.
class pool_offers : public simulated_device {
 protected:
  static constexpr std::size_t small = 64 * KiB;  // too large for a front cache, and not worth a mark
  static constexpr std::size_t count = 64;

  void SetUp() override {
    simulated_device::SetUp();
    pool_ =
        std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), count * small, count * small);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    while (void* const block = pool_->try_allocate(a(), small)) blocks_.insert(block);
    void* const last = take_any();
    pool_->deallocate(a(), last, small);
    blocks_.insert(pool_->allocate(b(), small));
    EXPECT_EQ(pool_->counters().from_reclaim, 1u);
    EXPECT_EQ(blocks_.size(), count);
  }

  void TearDown() override {
    pool_->check();
    for (void* const block : blocks_) pool_->deallocate(a(), block, small);
    pool_->check();
    a_.reset();
    b_.reset();
    {
      captured_stderr said;
      pool_.reset();
      EXPECT_EQ(said.text(), "") << "what is on offer is not in use";
    }
    simulated_device::TearDown();
  }

  void* take_any() { return blocks_.extract(blocks_.begin()).value(); }

  /// A block that A has written, copied to `witness`, and freed.
  void* offer_of(stream_ref lender, void* witness) {
    void* const block = take_any();
    fill_async(block, 0xAA, small, lender, 0);
    copy_async(witness, block, small, lender, 0);
    pool_->deallocate(lender, block, small);
    return block;
  }

  void expect_handed_over(stream_ref lender, stream_ref taker, void* block, void* witness) {
    const outcome seen = hand_over(lender, taker, block, witness, small);
    EXPECT_TRUE(seen.former_owner_was_done);
    EXPECT_TRUE(seen.block_is_the_new_owners);
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
  std::set<void*> blocks_;  // in use
};

/// Device memory to copy to.
class witness_memory {
 public:
  explicit witness_memory(std::size_t bytes) : memory_(device_allocate(0, bytes)) {}
  ~witness_memory() { device_free(0, memory_); }
  witness_memory(const witness_memory&) = delete;
  witness_memory& operator=(const witness_memory&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
};

TEST_F(pool_offers, go_to_another_stream_after_the_former_owners_work_at_the_price_of_an_event_and_a_wait) {
  const witness_memory witness(small);
  const auto before = pool_->counters();
  const call_count records("cuEventRecord"), waits("cuStreamWaitEvent"), creations("cuEventCreate");
  void* const block = offer_of(a(), witness.get());
  void* const again = pool_->allocate(b(), small);
  ASSERT_EQ(again, block);
  EXPECT_EQ(records.value(), 1);
  EXPECT_EQ(waits.value(), 1);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream + 1);
  expect_handed_over(a(), b(), block, witness.get());
  const long long made = creations.value();
  for (int i = 0; i < 100; ++i) {
    pool_->deallocate(i % 2 == 0 ? b() : a(), block, small);
    ASSERT_EQ(pool_->allocate(i % 2 == 0 ? a() : b(), small), block);
  }
  EXPECT_EQ(records.value(), 101);
  EXPECT_EQ(waits.value(), 101);
  EXPECT_LE(creations.value() - made, 1) << "events are used again";
  blocks_.insert(block);
}

TEST_F(pool_offers, go_to_their_own_stream_without_a_wait_the_newest_first) {
  const call_count waits("cuStreamWaitEvent");
  void* const first = take_any();
  void* const second = take_any();
  pool_->deallocate(a(), first, small);
  pool_->deallocate(a(), second, small);
  EXPECT_EQ(pool_->allocate(a(), small), second);
  EXPECT_EQ(pool_->allocate(a(), small), first);
  EXPECT_EQ(waits.value(), 0);
  blocks_.insert({first, second});
}

TEST_F(pool_offers, need_no_second_wait_where_the_order_is_known) {
  void* const first = take_any();
  void* const second = take_any();
  pool_->deallocate(a(), first, small);
  pool_->deallocate(a(), second, small);
  ASSERT_EQ(pool_->allocate(b(), small), first) << "the oldest first";
  const call_count waits("cuStreamWaitEvent");
  ASSERT_EQ(pool_->allocate(b(), small), second);
  EXPECT_EQ(waits.value(), 1) << "it was freed after what B has waited for";
  pool_->deallocate(a(), first, small);
  pool_->deallocate(a(), second, small);
  ASSERT_EQ(pool_->allocate(a(), small), second);
  ASSERT_EQ(pool_->allocate(b(), small), first);
  blocks_.insert({first, second});
}

TEST_F(pool_offers, are_joined_for_a_request_of_another_size_and_waited_for) {
  const witness_memory witness(small);
  void* const low = offer_of(a(), witness.get());
  void* const high = take_any();
  ASSERT_EQ(static_cast<std::byte*>(low) + small, high) << "they are neighbours";
  pool_->deallocate(a(), high, small);
  const auto before = pool_->counters();
  void* const both = pool_->allocate(b(), 2 * small);
  ASSERT_EQ(both, low);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream + 1);
  EXPECT_EQ(pool_->counters().waits, before.waits + 1);
  expect_handed_over(a(), b(), both, witness.get());
  pool_->deallocate(b(), both, 2 * small);
}

TEST_F(pool_offers, beyond_the_32nd_go_to_the_heap_the_oldest_first_and_keep_their_marks) {
  const witness_memory witness(small);
  void* const oldest = take_any();
  pool_->deallocate(a(), oldest, small);
  offer_of(a(), witness.get());
  for (int i = 0; i < 18; ++i) pool_->deallocate(a(), take_any(), small);
  ASSERT_EQ(pool_->allocate(b(), small), oldest) << "which keeps the pressure up";
  pool_->deallocate(b(), oldest, small);
  for (int i = 0; i < 20; ++i) pool_->deallocate(a(), take_any(), small);
  pool_->check();
  EXPECT_EQ(pool_->state().in_use, (count - 40) * small);
  const auto before = pool_->counters();
  std::set<void*> taken;
  while (void* const block = pool_->try_allocate(b(), small)) taken.insert(block);
  EXPECT_EQ(taken.size(), 40u) << "none is lost";
  EXPECT_EQ(pool_->counters().from_reclaim, before.from_reclaim) << "marks cover all of them";
  for (void* const block : taken) fill_async(block, 0xBB, small, b(), 0);
  synchronize(b(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(witness.get(), small, a()), 0xAA));
  for (void* const block : taken) EXPECT_TRUE(all_are(read(block, small, b()), 0xBB));
  blocks_.merge(taken);
}

TEST_F(pool_offers, outlive_the_stream_that_freed_them) {
  const witness_memory witness(small);
  void* block = nullptr;
  {
    const foreign_stream gone;
    block = offer_of(gone.view(), witness.get());
  }
  const foreign_stream with_its_handle;
  ASSERT_EQ(pool_->allocate(with_its_handle.view(), small), block);
  expect_handed_over(a(), with_its_handle.view(), block, witness.get());
  blocks_.insert(block);
}

TEST_F(pool_offers, come_from_the_legacy_default_stream_and_go_to_it) {
  const witness_memory witness(small);
  void* const block = offer_of({}, witness.get());
  ASSERT_EQ(pool_->allocate(b(), small), block);
  expect_handed_over({}, b(), block, witness.get());
  pool_->deallocate(b(), block, small);
  const call_count waits("cuStreamWaitEvent");
  ASSERT_EQ(pool_->allocate({}, small), block);
  EXPECT_EQ(waits.value(), 1);
  blocks_.insert(block);
}

TEST_F(pool_offers, are_not_made_where_the_event_is_not_to_be_had_and_nothing_is_lost) {
  const witness_memory witness(small);
  cenote_sim_fail("cuEventRecord", 1, CUDA_ERROR_UNKNOWN);
  void* const block = offer_of(a(), witness.get());
  pool_->check();
  const auto before = pool_->counters();
  ASSERT_EQ(pool_->allocate(b(), small), block);
  EXPECT_EQ(pool_->counters().from_reclaim, before.from_reclaim + 1);
  expect_handed_over(a(), b(), block, witness.get());
  blocks_.insert(block);
}

TEST_F(pool_offers, are_the_lenders_again_where_a_wait_fails) {
  const witness_memory witness(small);
  void* const block = offer_of(a(), witness.get());
  const auto before = pool_->counters();
  cenote_sim_fail("cuStreamWaitEvent", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(pool_->allocate(b(), small), cuda_error);
  EXPECT_EQ(pool_->counters().allocations, before.allocations);
  EXPECT_EQ(pool_->counters().from_other_stream, before.from_other_stream);
  EXPECT_EQ(pool_->state().in_use, (count - 1) * small);
  pool_->check();
  ASSERT_EQ(pool_->allocate(b(), small), block);
  EXPECT_EQ(pool_->counters().from_reclaim, before.from_reclaim) << "it has its mark";
  expect_handed_over(a(), b(), block, witness.get());
  blocks_.insert(block);
}

TEST_F(pool_offers, of_other_streams_are_nothing_to_one_that_is_being_captured) {
  void* const block = take_any();
  for (int i = 0; i < 8; ++i) fill_async(block, 0xAA, small, a(), 0);  // more work than asking an event gets done
  pool_->deallocate(a(), block, small);
  ASSERT_EQ(cuStreamBeginCapture(b().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  EXPECT_EQ(pool_->try_allocate(b(), small), nullptr);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(b().value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  ASSERT_EQ(pool_->allocate(a(), small), block);
  blocks_.insert(block);
}

TEST_F(pool_offers, are_free_to_whoever_asks) {
  void* const block = take_any();
  pool_->deallocate(a(), block, small);
  EXPECT_EQ(pool_->state().in_use, (count - 1) * small);
  EXPECT_NE(pool_->map().find(" free"), std::string::npos);
  captured_stderr said;
  pool_->deallocate(a(), block, small);
  EXPECT_NE(said.text().find("freed already"), std::string::npos);
  EXPECT_EQ(pool_->state().in_use, (count - 1) * small);
}

TEST_F(pool_offers, are_given_back_to_the_device_by_trim) {
  for (void* const block : blocks_) pool_->deallocate(a(), block, small);
  blocks_.clear();
  synchronize(a(), 0);
  EXPECT_EQ(pool_->trim(), count * small);
}

TEST_F(pool_offers, end_with_the_pressure) {
  void* const block = take_any();
  const call_count records("cuEventRecord");
  for (int i = 0; i < 64; ++i) {
    pool_->deallocate(a(), block, small);
    ASSERT_EQ(pool_->allocate(a(), small), block);
  }
  EXPECT_LE(records.value(), 32 + 32 / 2) << "nobody else wanted any: then two of these share a mark";
  blocks_.insert(block);
}

}  // namespace
}  // namespace cenote::test
