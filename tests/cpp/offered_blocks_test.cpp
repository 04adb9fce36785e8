// Blocks on offer, by themselves: whose turn it is, and the sums, against std::list.
#include "cenote/resources/offered_blocks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <list>
#include <random>
#include <stdexcept>

namespace cenote {
namespace {

constexpr stream_id mine{1};
constexpr stream_id theirs{2};
constexpr std::size_t small = 1024, large = 4096;

/// The block's number and the epoch of the mark are the same, so that what comes back is known.
offered_blocks::offer offer_of(block_index number, stream_id lender, std::size_t bytes) {
  return {number, bytes, lender, {number, nullptr}};
}

/// Which offer that is; no_block for none.
block_index number_of(const std::optional<offered_blocks::offer>& taken) {
  if (!taken) return no_block;
  EXPECT_EQ(taken->freed.epoch, taken->block) << "the mark is another offer's";
  return taken->block;
}

TEST(offered_blocks, come_back_to_their_own_stream_newest_first) {
  offered_blocks offers;
  offers.add(offer_of(1, mine, small));
  offers.add(offer_of(2, mine, small));
  offers.add(offer_of(3, mine, large));
  offers.add(offer_of(4, theirs, small));
  EXPECT_EQ(number_of(offers.take_own(mine, small)), 2u);
  EXPECT_EQ(number_of(offers.take_own(mine, small)), 1u);
  EXPECT_EQ(number_of(offers.take_own(mine, small)), no_block);
  EXPECT_EQ(number_of(offers.take_own(theirs, small)), 4u);
  EXPECT_EQ(number_of(offers.take_own(mine, large)), 3u);
}

TEST(offered_blocks, go_to_others_oldest_first_and_only_at_their_exact_size) {
  offered_blocks offers;
  offers.add(offer_of(1, mine, large));
  offers.add(offer_of(2, theirs, small));
  offers.add(offer_of(3, mine, small));
  EXPECT_EQ(number_of(offers.take(small - block_granularity)), no_block);
  EXPECT_EQ(number_of(offers.take(small + block_granularity)), no_block);
  EXPECT_EQ(number_of(offers.take(small)), 2u);
  EXPECT_EQ(number_of(offers.take(small)), 3u);
  EXPECT_EQ(number_of(offers.take(small)), no_block);
  EXPECT_EQ(number_of(offers.take(large)), 1u);
}

TEST(offered_blocks, are_taken_off_oldest_first_whatever_their_size) {
  offered_blocks offers;
  for (const block_index number : {1, 2, 3}) offers.add(offer_of(number, mine, number == 2 ? large : small));
  for (const block_index number : {1, 2, 3}) EXPECT_EQ(number_of(offers.take_oldest()), number);
  EXPECT_EQ(number_of(offers.take_oldest()), no_block);
}

TEST(offered_blocks, are_full_when_there_are_as_many_as_may_be) {
  offered_blocks offers;
  for (block_index number = 0; number < offered_blocks::most; ++number) {
    EXPECT_FALSE(offers.is_full());
    offers.add(offer_of(number, mine, small));
  }
  EXPECT_TRUE(offers.is_full());
  offers.take_oldest();
  EXPECT_FALSE(offers.is_full());
}

TEST(offered_blocks, behave_as_a_list_in_a_random_history) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    offered_blocks offers;
    std::list<offered_blocks::offer> model;  // oldest first
    const auto take = [&model](auto place) {
      const block_index number = place->block;
      model.erase(place);
      return number;
    };
    const auto first = [&](const std::function<bool(const offered_blocks::offer&)>& fits) {
      const auto place = std::find_if(model.begin(), model.end(), fits);
      return place == model.end() ? no_block : take(place);
    };
    const auto last = [&](const std::function<bool(const offered_blocks::offer&)>& fits) {
      const auto place = std::find_if(model.rbegin(), model.rend(), fits);
      return place == model.rend() ? no_block : take(std::prev(place.base()));
    };
    for (block_index step = 0; step < 20'000; ++step) {
      const stream_id stream{random() % 3};
      const std::size_t bytes = block_granularity * (1 + random() % 3);
      const auto fits = [&](const offered_blocks::offer& each) { return each.bytes == bytes; };
      const auto is_own = [&](const offered_blocks::offer& each) { return fits(each) && each.lender == stream; };
      switch (random() % 5) {
        case 0:
          ASSERT_EQ(number_of(offers.take_own(stream, bytes)), last(is_own)) << "step " << step;
          break;
        case 1:
          ASSERT_EQ(number_of(offers.take(bytes)), first(fits)) << "step " << step;
          break;
        case 2:
          if (random() % 4 != 0) break;
          ASSERT_EQ(number_of(offers.take_oldest()), first([](const auto&) { return true; })) << "step " << step;
          break;
        default:
          ASSERT_EQ(offers.is_full(), model.size() == offered_blocks::most);
          if (offers.is_full()) break;
          offers.add(offer_of(step, stream, bytes));
          model.push_back(offer_of(step, stream, bytes));
      }
      std::size_t sum = 0;
      for (const auto& each : model) sum += each.bytes;
      ASSERT_EQ(offers.size(), model.size());
      ASSERT_EQ(offers.bytes(), sum);
    }
  }
}

/// With a heap, that the blocks are as those on offer must be.
class offered_blocks_of_a_heap : public testing::Test {
 protected:
  void SetUp() override {
    owner_ = heap_.create_owner();
    heap_.add_chunk({reinterpret_cast<std::byte*>(0x7f00'0000'0000), 64 * large}, owner_, 0);
  }

  block_index offer(std::size_t bytes) {
    const block_index found = heap_.find(owner_, bytes, block_granularity);
    const block_index taken = heap_.taken_at(heap_.take(found, bytes, block_granularity));
    heap_.blocks()[taken].is_cached = true;
    offers_.add(offer_of(taken, mine, bytes));
    return taken;
  }

  void expect_violation(const std::string& invariant) const {
    try {
      offers_.check(heap_);
      ADD_FAILURE() << "nothing was found";
    } catch (const std::logic_error& found) {
      EXPECT_NE(std::string(found.what()).find(invariant), std::string::npos) << found.what();
    }
  }

  block_heap heap_;
  owner_index owner_ = 0;
  offered_blocks offers_;
};

TEST_F(offered_blocks_of_a_heap, that_are_as_they_must_be_pass_the_check) {
  offers_.check(heap_);
  offer(small);
  offer(large);
  offers_.check(heap_);
  offers_.take(small);
  offers_.check(heap_);
  EXPECT_EQ(offers_.bytes(), large);
}

TEST_F(offered_blocks_of_a_heap, that_somebody_uses_are_found) {
  heap_.blocks()[offer(small)].is_cached = false;
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_are_free_are_found) {
  const block_index offered = offer(small);
  heap_.give(offered, owner_, 0);
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_a_capture_keeps_are_found) {
  heap_.blocks()[offer(small)].is_kept = true;
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_have_another_size_are_found) {
  heap_.blocks()[offer(small)].set_bytes(large);
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_are_too_many_are_found) {
  for (std::size_t i = 0; i <= offered_blocks::most; ++i) offer(small);
  expect_violation("I2");
}

}  // namespace
}  // namespace cenote
