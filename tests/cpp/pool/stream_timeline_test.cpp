#include "cenote/pool/stream_timeline.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace cenote {
namespace {

using pool::mark;
using pool::stream_timeline;

constexpr stream_id own{1};
constexpr stream_id other{2};

mark at(stamp epoch) { return {epoch, nullptr}; }

std::set<stamp> epochs_of(const stream_timeline& timeline) {
  std::set<stamp> epochs;
  for (const mark& m : timeline.marks()) epochs.insert(m.epoch);
  return epochs;
}

void take_marks(stream_timeline& of, stamp upto) {
  while (of.take_mark(upto)) {
  }
}

TEST(stream_timeline, covers_a_free_with_the_earliest_mark_that_is_not_before_it) {
  stream_timeline timeline(own, 0, 1);
  EXPECT_EQ(timeline.covering(1), nullptr);
  for (const stamp epoch : {2, 4, 6}) timeline.place_mark(at(epoch));
  EXPECT_EQ(timeline.covering(1)->epoch, 2u);
  EXPECT_EQ(timeline.covering(2)->epoch, 2u);
  EXPECT_EQ(timeline.covering(3)->epoch, 4u);
  EXPECT_EQ(timeline.covering(6)->epoch, 6u);
  EXPECT_EQ(timeline.covering(7), nullptr);
}

TEST(stream_timeline, keeps_marks_in_order_of_epoch_however_they_arrive) {
  stream_timeline timeline(own, 0, 1);
  for (const stamp epoch : {3, 1, 5, 4, 2}) timeline.place_mark(at(epoch));
  stamp previous = 0;
  for (const mark& m : timeline.marks()) {
    EXPECT_GT(m.epoch, previous);
    previous = m.epoch;
  }
  EXPECT_EQ(timeline.marks().size(), 5u);
}

TEST(stream_timeline, gives_up_marks_up_to_an_epoch_and_no_further) {
  stream_timeline timeline(own, 0, 1);
  for (const stamp epoch : {1, 2, 3}) timeline.place_mark(at(epoch));
  take_marks(timeline, 2);
  EXPECT_EQ(epochs_of(timeline), std::set<stamp>{3});
  take_marks(timeline, 9);
  EXPECT_TRUE(timeline.marks().empty());
}

TEST(stream_timeline, drops_the_oldest_mark_when_there_are_too_many_and_covers_its_frees_later) {
  stream_timeline timeline(own, 0, 1);
  for (stamp epoch = 1; epoch <= 8; ++epoch) EXPECT_FALSE(timeline.place_mark(at(epoch)).has_value());
  const auto dropped = timeline.place_mark(at(9));
  ASSERT_TRUE(dropped.has_value());
  EXPECT_EQ(dropped->epoch, 1u);
  EXPECT_EQ(timeline.marks().size(), 8u);
  EXPECT_EQ(timeline.covering(1)->epoch, 2u);
}

TEST(stream_timeline, finds_an_epoch_worth_a_mark_after_32_frees) {
  stream_timeline timeline(own, 0, 1);
  for (int i = 1; i < 32; ++i) timeline.count_free(256);
  EXPECT_FALSE(timeline.is_worth_a_mark(1 * GiB));
  timeline.count_free(256);
  EXPECT_TRUE(timeline.is_worth_a_mark(1 * GiB));
  EXPECT_EQ(timeline.close_epoch(), 1u);
  EXPECT_EQ(timeline.open_epoch(), 2u);
  timeline.count_free(256);
  EXPECT_FALSE(timeline.is_worth_a_mark(1 * GiB)) << "counting starts afresh";
}

TEST(stream_timeline, finds_an_epoch_worth_a_mark_after_a_thirty_second_of_the_pool) {
  stream_timeline timeline(own, 0, 1);
  timeline.count_free(16 * MiB);
  EXPECT_FALSE(timeline.is_worth_a_mark(1 * GiB));
  timeline.count_free(16 * MiB);
  EXPECT_TRUE(timeline.is_worth_a_mark(1 * GiB));
}

TEST(stream_timeline, never_unlearns_by_learning_less) {
  stream_timeline timeline(own, 0, 1);
  EXPECT_EQ(timeline.known_of(other), 0u);
  timeline.learn(other, 5);
  timeline.learn(other, 3);
  EXPECT_EQ(timeline.known_of(other), 5u);
  timeline.unlearn_if([](stream_id id) { return id == other; });
  EXPECT_EQ(timeline.known_of(other), 0u);
}

TEST(stream_timeline, covers_as_a_set_of_the_last_eight_epochs_does) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    stream_timeline timeline(own, 0, 1);
    std::set<stamp> model;
    std::vector<stamp> late;
    for (int step = 0; step < 300; ++step) {
      const stamp epoch = timeline.close_epoch();
      late.push_back(epoch);  // threads place their marks in any order, or not at all
      std::swap(late.back(), late[random() % late.size()]);
      if (random() % 3 != 0) {
        const stamp placed = late.back();
        late.pop_back();
        const auto superseded = timeline.place_mark(at(placed));
        model.insert(placed);
        ASSERT_EQ(superseded.has_value(), model.size() > 8);
        if (superseded) {
          ASSERT_EQ(superseded->epoch, *model.begin());
          model.erase(model.begin());
        }
      }
      if (random() % 10 == 0) {
        const stamp forgotten = epoch - std::min<stamp>(epoch, random() % 10);
        take_marks(timeline, forgotten);
        model.erase(model.begin(), model.upper_bound(forgotten));
      }
      ASSERT_EQ(epochs_of(timeline), model);
      const stamp freed_at = random() % (epoch + 2);
      const mark* const found = timeline.covering(freed_at);
      const auto expected = model.lower_bound(freed_at);
      ASSERT_EQ(found == nullptr, expected == model.end());
      if (found != nullptr) {
        ASSERT_EQ(found->epoch, *expected);
      }
    }
  }
}

}  // namespace
}  // namespace cenote
