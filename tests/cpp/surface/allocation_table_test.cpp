// The table of one shard of the ledger, against a map.
#include "cenote/surface/allocation_table.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cenote {
namespace {

class allocation_table_of_a_shard : public testing::Test {
 protected:
  static void* address(std::uint64_t number) { return reinterpret_cast<void*>(256 * (number + 1)); }

  /// What was there before.
  allocation insert(void* pointer, std::size_t bytes) {
    if (!table_.has_room()) {
      std::vector<allocation> room(table_.places_to_bring());
      table_.move_into(room);
      for (const allocation& left : room) EXPECT_EQ(left.pointer, nullptr);
    }
    allocation made;
    made.pointer = pointer;
    made.bytes = bytes;
    table_.insert(made);
    return made;
  }

  allocation_table table_;
};

TEST_F(allocation_table_of_a_shard, holds_what_a_map_holds) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::unordered_map<void*, std::size_t> model;
  for (int step = 0; step < 20'000; ++step) {
    void* const pointer = address(random() % (step % 2'000 < 1'000 ? 400 : 40));  // fuller and emptier by turns
    allocation* const found = table_.find(pointer);
    const auto known = model.find(pointer);
    ASSERT_EQ(found != nullptr, known != model.end());
    if (found == nullptr) {
      ASSERT_EQ(insert(pointer, step).pointer, nullptr);
      model[pointer] = step;
    } else {
      ASSERT_EQ(found->bytes, known->second);
      ASSERT_EQ(table_.remove(*found).bytes, known->second);
      model.erase(known);
    }
    ASSERT_EQ(table_.size(), model.size());
    table_.check();
  }
  for (const auto& [pointer, bytes] : model) ASSERT_EQ(table_.find(pointer)->bytes, bytes);
}

TEST_F(allocation_table_of_a_shard, knows_an_address_once_and_gives_back_what_it_replaces) {
  insert(address(1), 100);
  EXPECT_EQ(insert(address(1), 200).bytes, 100u);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(table_.find(address(1))->bytes, 200u);
}

TEST_F(allocation_table_of_a_shard, is_empty_before_there_is_any_room) {
  EXPECT_EQ(table_.find(address(1)), nullptr);
  EXPECT_FALSE(table_.has_room());
  table_.check();
}

TEST_F(allocation_table_of_a_shard, does_not_move_into_room_that_is_no_larger) {
  insert(address(1), 100);
  std::vector<allocation> room(8);
  table_.move_into(room);
  EXPECT_EQ(room.size(), 8u);
  EXPECT_NE(table_.find(address(1)), nullptr);
}

}  // namespace
}  // namespace cenote
