// What happens to a pool's blocks while a thread has one of them in hand: it records the event of an offer, or waits
// for it, and others go on meanwhile. The bookkeeping alone makes no driver call.
#include "cenote/pool/stream_ordered_heap.hpp"

#include "support/simulated.hpp"

namespace cenote {
namespace {

constexpr stream_id a{1}, b{2};
constexpr std::size_t block_bytes = 64 * 1024;
constexpr std::size_t block_count = 2 * offered_blocks::most;

/// A heap that has been handed out to A as a whole; what is freed next is on offer.
class stream_ordered_heap_under_pressure : public testing::Test {
 protected:
  using offer = stream_ordered_heap::offer;
  using request = stream_ordered_heap::request;

  void SetUp() override {
    heap_.meet(a);
    heap_.meet(b);
    heap_.add_chunk({reinterpret_cast<std::byte*>(0x7f00'0000'0000), block_count * block_bytes}, std::nullopt);
    while (void* const block = heap_.take(of(a))) blocks_.push_back(block);
    ASSERT_EQ(blocks_.size(), block_count);
    heap_.mark_at_once();
  }

  void TearDown() override { heap_.check(); }

  static request of(stream_id stream) { return {stream, block_bytes, default_alignment}; }

  /// The offer of the next block, which a thread has in hand.
  offer* free_on(stream_id stream) {
    void* const block = blocks_.back();
    blocks_.pop_back();
    const auto freed = heap_.free(stream, block);
    return freed ? freed->offered : nullptr;
  }

  std::size_t blocks_in_use() const { return heap_.blocks_in_use(); }

  stream_ordered_heap heap_;
  std::vector<void*> blocks_;
};

TEST_F(stream_ordered_heap_under_pressure, keeps_the_stream_of_an_offer_that_is_not_published_yet) {
  offer* const made = free_on(a);
  ASSERT_NE(made, nullptr);
  heap_.drop_idle(b);
  EXPECT_TRUE(heap_.knows(a));
  made->publish();
  EXPECT_FALSE(heap_.marks().empty()) << "it is in the heap, with its mark";
  EXPECT_NE(heap_.take(of(a)), nullptr);
}

TEST_F(stream_ordered_heap_under_pressure, keeps_the_stream_of_an_offer_that_somebody_is_about_to_wait_for) {
  free_on(a)->publish();
  auto borrowed = heap_.borrow(of(b));
  ASSERT_TRUE(borrowed && borrowed->lent != nullptr);
  heap_.drop_idle(b);
  EXPECT_TRUE(heap_.knows(a));
  heap_.give_back(*std::move(borrowed));
  EXPECT_FALSE(heap_.marks().empty());
  EXPECT_NE(heap_.take(of(a)), nullptr);
}

TEST_F(stream_ordered_heap_under_pressure, forgets_the_stream_of_an_offer_that_was_awaited) {
  free_on(a)->publish();
  const auto borrowed = heap_.borrow(of(b));
  ASSERT_TRUE(borrowed && borrowed->lent != nullptr);
  borrowed->lent->was_awaited();
  heap_.drop_idle(b);
  EXPECT_FALSE(heap_.knows(a));
}

TEST_F(stream_ordered_heap_under_pressure, gives_nobody_what_is_not_published) {
  offer* const made = free_on(a);
  EXPECT_EQ(blocks_in_use(), block_count - 1) << "it is free all the same";
  for (const stream_id stream : {a, b}) {
    EXPECT_EQ(heap_.take(of(stream)), nullptr);
    EXPECT_FALSE(heap_.borrow(of(stream)));
  }
  made->publish();
  EXPECT_TRUE(heap_.borrow(of(b)));
}

TEST_F(stream_ordered_heap_under_pressure, has_in_its_heap_what_got_no_event) {
  const auto events = heap_.counters().events;
  heap_.withdraw_unmarked(*free_on(a));
  EXPECT_EQ(heap_.counters().events, events);
  EXPECT_FALSE(heap_.borrow(of(b))) << "no mark covers it";
  EXPECT_NE(heap_.take(of(a)), nullptr);
}

TEST_F(stream_ordered_heap_under_pressure, learns_of_a_wait_only_once_it_was_issued) {
  offer* const earlier = free_on(a);
  free_on(a)->publish();
  const auto first = heap_.borrow(of(b));
  ASSERT_TRUE(first && first->lent != nullptr);
  earlier->publish();
  const auto second = heap_.borrow(of(b));
  ASSERT_TRUE(second);
  EXPECT_NE(second->lent, nullptr) << "another thread of the same stream has not issued its wait yet";
  EXPECT_EQ(heap_.counters().waits, 2u);
}

TEST_F(stream_ordered_heap_under_pressure, needs_no_wait_after_one_that_was_issued) {
  offer* const earlier = free_on(a);
  free_on(a)->publish();
  const auto first = heap_.borrow(of(b));
  ASSERT_TRUE(first && first->lent != nullptr);
  first->lent->was_awaited();
  earlier->publish();
  const auto second = heap_.borrow(of(b));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->lent, nullptr);
  EXPECT_EQ(heap_.counters().waits, 1u);
}

TEST_F(stream_ordered_heap_under_pressure, needs_no_wait_for_what_its_own_stream_has_published_since_it_looked) {
  offer* const own = free_on(b);
  EXPECT_EQ(heap_.take(of(b)), nullptr);
  own->publish();
  const auto found = heap_.borrow(of(b));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->lent, nullptr);
}

TEST_F(stream_ordered_heap_under_pressure, makes_no_offer_where_all_places_are_in_hand) {
  for (std::size_t i = 0; i < offered_blocks::most; ++i) EXPECT_NE(free_on(a), nullptr);
  heap_.mark_at_once();
  EXPECT_EQ(free_on(a), nullptr);
}

TEST_F(stream_ordered_heap_under_pressure, gives_nobody_what_is_held_but_by_claims) {
  free_on(a)->publish();
  const auto claims = heap_.claims_upon_all();
  heap_.hold();
  EXPECT_EQ(heap_.take(of(a)), nullptr) << "its own, but promised to B";
  EXPECT_FALSE(heap_.borrow(of(a)));
  std::optional<stream_ordered_heap::due_mark> due;
  EXPECT_NE(heap_.take_claims(of(b), claims, 1, due), nullptr);
  heap_.withdraw_unmarked(*free_on(a));
  heap_.let_go();
  EXPECT_NE(heap_.take(of(a)), nullptr);
}

/// Events that nobody needs any more are not destroyed where they are let go, under the pool's lock.
class events_of_a_heap : public test::simulated_device {
 protected:
  std::shared_ptr<event> recorded() const { return event::record({}, 0); }
};

TEST_F(events_of_a_heap, are_left_over_where_their_stream_was_forgotten_meanwhile) {
  stream_ordered_heap heap;
  heap.place(a, {1, recorded()});
  EXPECT_NE(heap.spares().take(), nullptr);
}

TEST_F(events_of_a_heap, are_left_over_where_a_later_mark_covers_what_was_borrowed) {
  stream_ordered_heap heap;
  const stream_ordered_heap::request wanted{a, block_bytes, default_alignment};
  heap.meet(a);
  heap.meet(b);
  heap.add_chunk({reinterpret_cast<std::byte*>(0x7f00'0000'0000), block_bytes}, std::nullopt);
  const auto freed = heap.free(a, heap.take(wanted));
  ASSERT_TRUE(freed && freed->due) << "the block is all of the pool";
  const stamp epoch = freed->due->epoch;
  heap.place(a, {epoch, recorded()});
  heap.place(a, {epoch + 1, recorded()});
  auto borrowed = heap.borrow({b, block_bytes, default_alignment});
  ASSERT_TRUE(borrowed && borrowed->awaited() != nullptr);
  const event* const awaited = borrowed->awaited();
  heap.make_ready({{a, {epoch, nullptr}}});
  heap.give_back(*std::move(borrowed));
  EXPECT_EQ(heap.spares().take().get(), awaited);
  heap.check();
}

}  // namespace
}  // namespace cenote
