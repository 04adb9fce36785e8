// Blocks on offer, by themselves: whose turn it is, and the sums, against std::list.
#include "cenote/pool/offered_blocks.hpp"

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

using offer = offered_blocks::offer;

/// The block's number and the epoch of the mark are the same, so that what comes back is known.
offer& make(offered_blocks& offers, block_index number, stream_id lender, std::size_t bytes) {
  offer* const made = offers.make(number, bytes, lender, number);
  if (made == nullptr) throw std::logic_error("no place is vacant");
  return *made;
}

void publish(offered_blocks& offers, block_index number, stream_id lender, std::size_t bytes) {
  make(offers, number, lender, bytes).publish();
}

/// Which offer was found, which is removed; no_block for none.
block_index remove(offered_blocks& offers, offer* found) {
  if (found == nullptr) return no_block;
  EXPECT_EQ(found->freed.epoch, found->block) << "the mark is another offer's";
  offers.remove(*found);
  return found->block;
}

block_index withdraw(offered_blocks& offers) {
  const auto withdrawn = offers.withdraw_oldest();
  if (!withdrawn) return no_block;
  EXPECT_EQ(withdrawn->freed.epoch, withdrawn->block) << "the mark is another offer's";
  return withdrawn->block;
}

TEST(offered_blocks, come_back_to_their_own_stream_newest_first) {
  offered_blocks offers;
  publish(offers, 1, mine, small);
  publish(offers, 2, mine, small);
  publish(offers, 3, mine, large);
  publish(offers, 4, theirs, small);
  EXPECT_EQ(remove(offers, offers.find_own(mine, small)), 2u);
  EXPECT_EQ(remove(offers, offers.find_own(mine, small)), 1u);
  EXPECT_EQ(offers.find_own(mine, small), nullptr);
  EXPECT_EQ(remove(offers, offers.find_own(theirs, small)), 4u);
  EXPECT_EQ(remove(offers, offers.find_own(mine, large)), 3u);
}

TEST(offered_blocks, go_to_others_oldest_first_and_only_at_their_exact_size) {
  offered_blocks offers;
  publish(offers, 1, mine, large);
  publish(offers, 2, theirs, small);
  publish(offers, 3, mine, small);
  EXPECT_EQ(offers.find(small - block_granularity), nullptr);
  EXPECT_EQ(offers.find(small + block_granularity), nullptr);
  EXPECT_EQ(remove(offers, offers.find(small)), 2u);
  EXPECT_EQ(remove(offers, offers.find(small)), 3u);
  EXPECT_EQ(offers.find(small), nullptr);
  EXPECT_EQ(remove(offers, offers.find(large)), 1u);
}

TEST(offered_blocks, are_taken_off_oldest_first_whatever_their_size) {
  offered_blocks offers;
  for (const block_index number : {1, 2, 3}) publish(offers, number, mine, number == 2 ? large : small);
  for (const block_index number : {1, 2, 3}) EXPECT_EQ(withdraw(offers), number);
  EXPECT_EQ(withdraw(offers), no_block);
}

TEST(offered_blocks, are_full_when_there_are_as_many_as_may_be) {
  offered_blocks offers;
  for (block_index number = 0; number < offered_blocks::most; ++number) {
    EXPECT_FALSE(offers.is_full());
    publish(offers, number, mine, small);
  }
  EXPECT_TRUE(offers.is_full());
  EXPECT_EQ(offers.make(offered_blocks::most, small, mine, 1), nullptr);
  withdraw(offers);
  EXPECT_FALSE(offers.is_full());
}

TEST(offered_blocks, are_nobodys_but_not_to_be_had_before_they_are_published) {
  offered_blocks offers;
  offer& made = make(offers, 1, mine, small);
  EXPECT_EQ(offers.find_own(mine, small), nullptr) << "its thread has it in hand";
  EXPECT_EQ(offers.find(small), nullptr);
  EXPECT_EQ(withdraw(offers), no_block);
  EXPECT_EQ(offers.size(), 1u);
  EXPECT_EQ(offers.bytes(), small);
  EXPECT_TRUE(offers.has_lender(mine));
  made.publish();
  EXPECT_EQ(offers.find(small), &made);
}

TEST(offered_blocks, that_got_no_event_leave_their_place) {
  offered_blocks offers;
  offers.remove(make(offers, 1, mine, small));
  EXPECT_FALSE(offers.has_lender(mine));
  EXPECT_EQ(offers.size(), 0u);
}

TEST(offered_blocks, that_are_lent_teach_who_has_waited) {
  offered_blocks offers;
  publish(offers, 7, mine, small);
  offer& lent = *offers.find(small);
  offers.lend(lent, theirs);
  EXPECT_EQ(offers.size(), 0u) << "somebody uses the block";
  EXPECT_EQ(offers.find(small), nullptr);
  EXPECT_EQ(withdraw(offers), no_block);
  EXPECT_FALSE(offers.harvest()) << "it has not waited yet";
  EXPECT_TRUE(offers.has_lender(mine)) << "it may be given back";
  lent.was_awaited();
  const auto lesson = offers.harvest();
  ASSERT_TRUE(lesson);
  EXPECT_EQ(lesson->borrower, theirs);
  EXPECT_EQ(lesson->lender, mine);
  EXPECT_EQ(lesson->epoch, 7u);
  EXPECT_FALSE(offers.harvest());
  EXPECT_FALSE(offers.has_lender(mine));
}

TEST(offered_blocks, that_are_given_back_are_as_old_as_before) {
  offered_blocks offers;
  publish(offers, 1, mine, small);
  publish(offers, 2, mine, small);
  offer& first = *offers.find(small);
  offers.lend(first, theirs);
  EXPECT_EQ(offers.find(small)->block, 2u);
  offers.give_back(first);
  EXPECT_EQ(offers.size(), 2u);
  EXPECT_EQ(remove(offers, offers.find(small)), 1u);
}

TEST(offered_blocks, behave_as_a_list_in_a_random_history) {
  struct entry {
    offer* place;
    block_index number;
    std::size_t bytes;
    stream_id lender;
    enum class state { freed, offered, taken, awaited } at = state::freed;
  };
  using state = decltype(entry::at);
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    offered_blocks offers;
    std::list<entry> model;  // oldest first
    using is_wanted = std::function<bool(const entry&)>;
    const auto first = [&](const is_wanted& wanted) { return std::find_if(model.begin(), model.end(), wanted); };
    const auto last = [&](const is_wanted& wanted) {
      const auto place = std::find_if(model.rbegin(), model.rend(), wanted);
      return place == model.rend() ? model.end() : std::prev(place.base());
    };
    const auto in = [](state wanted) { return [wanted](const entry& each) { return each.at == wanted; }; };
    for (block_index step = 0; step < 20'000; ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      const stream_id stream{random() % 3};
      const std::size_t bytes = block_granularity * (1 + random() % 3);
      const auto fits = [&](const entry& each) { return each.at == state::offered && each.bytes == bytes; };
      const auto is_own = [&](const entry& each) { return fits(each) && each.lender == stream; };
      switch (random() % 10) {
        case 0: {
          const auto expected = last(is_own);
          offer* const found = offers.find_own(stream, bytes);
          ASSERT_EQ(found, expected == model.end() ? nullptr : expected->place);
          if (found == nullptr) break;
          ASSERT_EQ(remove(offers, found), expected->number);
          model.erase(expected);
          break;
        }
        case 1: {
          const auto expected = first(fits);
          offer* const found = offers.find(bytes);
          ASSERT_EQ(found, expected == model.end() ? nullptr : expected->place);
          if (found == nullptr) break;
          ASSERT_EQ(found->block, expected->number);
          offers.lend(*found, stream);
          expected->at = state::taken;
          break;
        }
        case 2:
        case 3: {
          const auto waiting = first(in(state::taken));
          if (waiting == model.end()) break;
          if (random() % 4 == 0) {
            offers.give_back(*waiting->place);
            waiting->at = state::offered;
          } else {
            waiting->place->was_awaited();
            waiting->at = state::awaited;
          }
          break;
        }
        case 4: {
          const auto expected = first(in(state::awaited));
          const auto lesson = offers.harvest();
          ASSERT_EQ(lesson.has_value(), expected != model.end());
          if (!lesson) break;
          ASSERT_EQ(lesson->epoch, expected->number);
          ASSERT_EQ(lesson->lender, expected->lender);
          model.erase(expected);
          break;
        }
        case 5: {
          if (random() % 4 != 0) break;
          const auto expected = first(in(state::offered));
          ASSERT_EQ(withdraw(offers), expected == model.end() ? no_block : expected->number);
          if (expected != model.end()) model.erase(expected);
          break;
        }
        case 6: {
          const auto recorded = last(in(state::freed));
          if (recorded == model.end()) break;
          recorded->place->publish();
          recorded->at = state::offered;
          break;
        }
        default: {
          ASSERT_EQ(offers.is_full(), model.size() == offered_blocks::most);
          offer* const made = offers.make(step, bytes, stream, step);
          ASSERT_EQ(made == nullptr, model.size() == offered_blocks::most);
          if (made == nullptr) break;
          model.push_back({made, step, bytes, stream});
          if (random() % 2 == 0) break;
          made->publish();
          model.back().at = state::offered;
        }
      }
      std::size_t count = 0, sum = 0;
      for (const entry& each : model) {
        if (each.at != state::freed && each.at != state::offered) continue;
        ++count;
        sum += each.bytes;
      }
      ASSERT_EQ(offers.size(), count);
      ASSERT_EQ(offers.bytes(), sum);
      ASSERT_EQ(offers.has_lender(stream), first([&](const entry& e) { return e.lender == stream; }) != model.end());
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

  block_index make_one(std::size_t bytes) {
    const block_index found = heap_.find(owner_, bytes, block_granularity);
    const block_index taken = heap_.taken_at(heap_.take(found, bytes, block_granularity));
    heap_.blocks()[taken].is_cached = true;
    publish(offers_, taken, mine, bytes);
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
  make_one(small);
  make_one(large);
  offers_.check(heap_);
  offers_.remove(*offers_.find(small));
  offers_.check(heap_);
  EXPECT_EQ(offers_.bytes(), large);
}

TEST_F(offered_blocks_of_a_heap, that_somebody_uses_are_found) {
  heap_.blocks()[make_one(small)].is_cached = false;
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_are_free_are_found) {
  const block_index offered = make_one(small);
  heap_.give(offered, owner_, 0);
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_a_capture_keeps_are_found) {
  heap_.blocks()[make_one(small)].is_kept = true;
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_have_another_size_are_found) {
  heap_.blocks()[make_one(small)].set_bytes(large);
  expect_violation("I1");
}

TEST_F(offered_blocks_of_a_heap, that_are_in_use_again_may_be_anything) {
  const block_index lent = make_one(small);
  offers_.lend(*offers_.find(small), theirs);
  heap_.blocks()[lent].is_cached = false;
  offers_.check(heap_);
}

}  // namespace
}  // namespace cenote
