// Where blocks are kept: who gets which place, and that nobody gets one that is in use.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "cenote/structures/block.hpp"

namespace cenote {
namespace {

constexpr std::size_t takers = 16;
constexpr std::size_t run = 8;               // places that one taker gets at a time
constexpr std::size_t first_segment = 1024;  // places that there are before the table grows again

/// A block that is like no other.
block block_number(std::uintptr_t number) {
  block made;
  made.address = reinterpret_cast<std::byte*>(number * block_granularity);
  made.granules = static_cast<std::uint32_t>(number);
  return made;
}

block_index create(block_table& blocks, std::size_t taker, std::uintptr_t number = 1) {
  blocks.reserve(1);
  return blocks.create(block_number(number), taker);
}

/// All of the first segment.
std::vector<block_index> fill(block_table& blocks, std::size_t taker) {
  std::vector<block_index> all;
  for (std::size_t i = 0; i < first_segment; ++i) all.push_back(create(blocks, taker));
  EXPECT_EQ(*std::max_element(all.begin(), all.end()), first_segment - 1) << "the table has grown";
  return all;
}

TEST(block_table, gives_no_run_and_no_cache_line_to_two_takers_while_it_has_unused_runs) {
  constexpr std::size_t most = first_segment / takers;  // of each taker at a time: then there are runs for all
  constexpr std::uintptr_t line = 64;
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    block_table blocks;
    std::vector<std::vector<block_index>> of_taker(takers);
    std::map<std::size_t, std::size_t> taker_of_run;
    std::map<std::uintptr_t, std::size_t> taker_of_line;
    for (int step = 0; step < 10'000; ++step) {
      const std::size_t taker = random() % takers;
      auto& own = of_taker[taker];
      if (own.size() == most || (!own.empty() && random() % 3 == 0)) {
        std::swap(own[random() % own.size()], own.back());
        blocks.destroy(own.back());
        own.pop_back();
        continue;
      }
      own.push_back(create(blocks, taker));
      ASSERT_EQ(taker_of_run.try_emplace(own.back() / run, taker).first->second, taker);
      const auto begin = reinterpret_cast<std::uintptr_t>(&blocks[own.back()]);
      for (const std::uintptr_t address : {begin, begin + sizeof(block) - 1}) {
        ASSERT_EQ(taker_of_line.try_emplace(address / line, taker).first->second, taker);
      }
    }
    EXPECT_LE(taker_of_run.size(), first_segment / run);
  }
}

TEST(block_table, gives_a_place_that_was_freed_to_the_taker_of_its_run_again) {
  block_table blocks;
  const block_index of_one = create(blocks, 1), of_two = create(blocks, 2);
  blocks.destroy(of_one);
  EXPECT_NE(create(blocks, 2), of_one);
  EXPECT_EQ(create(blocks, 1), of_one);
  blocks.destroy(of_two);
  EXPECT_NE(create(blocks, 1), of_two);
  EXPECT_EQ(create(blocks, 2), of_two);
}

TEST(block_table, gives_what_is_vacant_to_anybody_once_it_is_full) {
  block_table blocks;
  const std::vector<block_index> all = fill(blocks, 0);
  const std::set<block_index> vacant(all.begin() + 100, all.begin() + 140);
  for (const block_index index : vacant) blocks.destroy(index);
  blocks.reserve(vacant.size());
  std::set<block_index> given;
  for (std::size_t taker = 1; given.size() < vacant.size(); ++taker) {
    const auto [place, is_new] = given.insert(blocks.create(block_number(2), taker));
    ASSERT_TRUE(is_new);
  }
  EXPECT_EQ(given, vacant) << "nothing else was free, and no more room was needed";
  EXPECT_GE(create(blocks, 0), first_segment);
}

TEST(block_table, gives_a_place_that_another_had_for_want_of_any_to_the_taker_of_its_run_again) {
  block_table blocks;
  const block_index place = fill(blocks, 0).back();
  blocks.destroy(place);
  ASSERT_EQ(create(blocks, 1), place);
  blocks.destroy(place);
  blocks.reserve(2);  // the table grows: from now on there are unused runs
  EXPECT_GE(blocks.create(block_number(2), 1), first_segment);
  EXPECT_EQ(blocks.create(block_number(3), 0), place);
}

TEST(block_table, has_room_for_as_many_blocks_as_were_reserved) {
  for (const std::size_t count : {std::size_t{1}, first_segment, first_segment + 1, 10 * first_segment}) {
    block_table blocks;
    std::mt19937_64 random(count);
    for (std::size_t i = 0; i < first_segment / 2; ++i) create(blocks, random() % takers);
    blocks.reserve(count);
    std::set<block_index> given;
    for (std::size_t i = 0; i < count; ++i) given.insert(blocks.create(block_number(i), random() % takers));
    EXPECT_EQ(given.size(), count);
  }
}

TEST(block_table, serves_takers_beyond_those_that_it_tells_apart) {
  block_table blocks;
  const block_index own = create(blocks, 3);
  blocks.destroy(own);
  EXPECT_EQ(create(blocks, 3 + takers), own) << "they share a stock";
}

TEST(block_table, gives_no_index_twice_and_keeps_every_block_in_a_random_history) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    block_table blocks;
    std::vector<block_index> live;
    const block_index staying = create(blocks, 0);
    std::map<block_index, std::uintptr_t> model{{staying, 1}};  // the block's number
    const block* const where = &blocks[staying];
    for (std::uintptr_t number = 1; number <= 20'000; ++number) {
      // It fills beyond two segments, empties, and fills again.
      const bool is_filling = number / 5'000 % 2 == 0;
      if (!live.empty() && random() % 4 < (is_filling ? 1u : 3u)) {
        std::swap(live[random() % live.size()], live.back());
        const block_index index = live.back();
        ASSERT_EQ(blocks[index].granules, model.at(index));
        ASSERT_EQ(blocks[index].address, block_number(model.at(index)).address);
        live.pop_back();
        model.erase(index);
        blocks.destroy(index);
        continue;
      }
      const block_index index = create(blocks, random() % (takers + 4), number);
      ASSERT_TRUE(model.try_emplace(index, number).second) << "place " << index << " is in use";
      live.push_back(index);
    }
    for (const auto& [index, number] : model) ASSERT_EQ(blocks[index].granules, number);
    EXPECT_EQ(&blocks[staying], where) << "a block stays where it is";
  }
}

}  // namespace
}  // namespace cenote
