// Where blocks are kept: that places are whose they should be, and that none is given twice.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "cenote/structures/block.hpp"

namespace cenote {
namespace {

constexpr std::size_t run = 8;

block block_at(std::uintptr_t address) {
  block made;
  made.address = reinterpret_cast<std::byte*>(address);
  return made;
}

block_index create(block_table& table, std::size_t taker, std::uintptr_t address = 0) {
  table.reserve(1);
  return table.create(block_at(address), taker);
}

TEST(block_table, gives_places_of_two_takers_no_cache_line_in_common) {
  block_table table;
  std::map<block_index, std::size_t> taker_of_run;
  for (std::size_t i = 0; i < 900; ++i) {
    const std::size_t taker = i % 16;
    const block_index index = create(table, taker);
    EXPECT_EQ(taker_of_run.emplace(index / run, taker).first->second, taker);
  }
  const auto line_of = [&](block_index index) { return reinterpret_cast<std::uintptr_t>(&table[index]) / 64; };
  for (const auto& [of_run, taker] : taker_of_run) {
    const auto next = taker_of_run.find(of_run + 1);
    if (next == taker_of_run.end() || next->second == taker) continue;
    EXPECT_NE(line_of(static_cast<block_index>(run * of_run + run - 1)),
              line_of(static_cast<block_index>(run * next->first)));
  }
}

TEST(block_table, gives_a_place_to_the_taker_who_had_it_whoever_frees_it) {
  block_table table;
  const block_index of_one = create(table, 1);
  create(table, 2);
  table.destroy(of_one);
  for (std::size_t i = 0; i < 2 * run; ++i) EXPECT_NE(create(table, 2) / run, of_one / run);
  EXPECT_EQ(create(table, 1), of_one);
}

TEST(block_table, gives_what_only_other_takers_have_left_before_it_grows) {
  block_table table;
  std::set<block_index> places;
  for (int i = 0; i < 1024; ++i) places.insert(create(table, 3));
  for (const block_index index : places) table.destroy(index);
  for (int i = 0; i < 1024; ++i) EXPECT_TRUE(places.contains(create(table, 4))) << "the first segment has 1024 places";
  EXPECT_FALSE(places.contains(create(table, 4)));
}

TEST(block_table, gives_no_place_twice_and_keeps_each_block_in_a_random_history) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    block_table table;
    std::map<block_index, std::uintptr_t> live;
    for (std::uintptr_t step = 1; step < 20'000; ++step) {
      if (live.empty() || random() % 1000 < 450 + (step / 2'000 % 2 == 0 ? 100u : 0u)) {
        ASSERT_TRUE(live.emplace(create(table, random() % 20, step), step).second) << "given twice";
      } else {
        const auto gone = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size() % 64));
        ASSERT_EQ(table[gone->first].address, reinterpret_cast<std::byte*>(gone->second));
        table.destroy(gone->first);
        live.erase(gone);
      }
    }
    for (const auto& [index, address] : live) ASSERT_EQ(table[index].address, reinterpret_cast<std::byte*>(address));
  }
}

}  // namespace
}  // namespace cenote
