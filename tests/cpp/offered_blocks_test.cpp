// The blocks on offer by themselves: who gets which, and that none is lost.
#include "cenote/resources/offered_blocks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>
#include <stdexcept>
#include <vector>

namespace cenote {
namespace {

constexpr std::size_t granule = block_granularity;
constexpr stream_id ours{17}, theirs{18};

class offers : public testing::Test {
 protected:
  offers() : owner_(heap_.create_owner()) {
    heap_.add_chunk({reinterpret_cast<std::byte*>(0x7f00'0000'0000), 64 * MiB}, owner_, 0);
  }

  /// A block that was in use and is nobody's now, and the mark that it was freed at.
  offered_blocks::offer freed(std::size_t bytes, stream_id lender, stamp epoch = 1) {
    const block_index taken = heap_.taken_at(heap_.take(heap_.find(owner_, bytes, granule), bytes, granule));
    heap_.blocks()[taken].is_cached = true;
    return {taken, bytes, lender, {epoch, nullptr}};
  }

  block_heap heap_;
  owner_index owner_;
  offered_blocks offers_;
};

TEST_F(offers, go_to_their_own_stream_newest_first_and_to_others_oldest_first) {
  for (const stamp epoch : {1, 2, 3}) offers_.add(freed(granule, ours, epoch));
  offers_.add(freed(granule, theirs, 4));
  EXPECT_EQ(offers_.take_own(ours, granule)->freed.epoch, 3u);
  EXPECT_EQ(offers_.take(granule)->freed.epoch, 1u);
  EXPECT_EQ(offers_.take_own(theirs, granule)->freed.epoch, 4u);
  EXPECT_FALSE(offers_.take_own(theirs, granule));
  EXPECT_EQ(offers_.take_oldest()->freed.epoch, 2u);
  EXPECT_FALSE(offers_.take_oldest());
}

TEST_F(offers, are_of_exactly_the_size_that_is_asked_for) {
  offers_.add(freed(4 * granule, ours));
  EXPECT_FALSE(offers_.take(3 * granule));
  EXPECT_FALSE(offers_.take(5 * granule));
  EXPECT_FALSE(offers_.take_own(ours, 3 * granule));
  EXPECT_EQ(offers_.bytes(), 4 * granule);
  EXPECT_TRUE(offers_.take(4 * granule));
  EXPECT_EQ(offers_.bytes(), 0u);
}

TEST_F(offers, that_somebody_has_are_seen) {
  offers_.add(freed(granule, ours));
  offers_.check(heap_);
  offered_blocks::offer wrong = freed(granule, ours);
  heap_.blocks()[wrong.block].is_cached = false;
  offers_.add(wrong);
  EXPECT_THROW(offers_.check(heap_), std::logic_error);
}

TEST_F(offers, are_neither_lost_nor_doubled_in_a_random_history) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    offered_blocks tried;
    std::list<offered_blocks::offer> model;
    const auto expect_taken = [&](std::optional<offered_blocks::offer> taken, auto expected) {
      ASSERT_EQ(taken.has_value(), expected != model.end());
      if (!taken) return;
      ASSERT_EQ(taken->block, expected->block);
      model.erase(expected);
      heap_.blocks()[taken->block].is_cached = false;
      heap_.give(taken->block, owner_, 0);
    };
    for (int step = 0; step < 2'000; ++step) {
      const std::size_t bytes = granule * (1 + random() % 3);
      const stream_id stream{1 + random() % 3};
      const auto is_it = [&](const auto& each) { return each.bytes == bytes; };
      const auto is_own = [&](const auto& each) { return each.bytes == bytes && each.lender == stream; };
      switch (random() % 5) {
        case 0: {
          const auto newest = std::find_if(model.rbegin(), model.rend(), is_own);
          expect_taken(tried.take_own(stream, bytes), newest == model.rend() ? model.end() : std::prev(newest.base()));
          break;
        }
        case 1:
          expect_taken(tried.take(bytes), std::find_if(model.begin(), model.end(), is_it));
          break;
        default:
          if (tried.is_full()) expect_taken(tried.take_oldest(), model.begin());
          model.push_back(freed(bytes, stream));
          tried.add(model.back());
      }
      ASSERT_FALSE(HasFatalFailure());
      ASSERT_EQ(tried.size(), model.size());
      tried.check(heap_);
    }
    while (!model.empty()) expect_taken(tried.take_oldest(), model.begin());
    heap_.check();
    ASSERT_EQ(heap_.largest_free(owner_), 64 * MiB) << "all is one block again";
  }
}

}  // namespace
}  // namespace cenote
