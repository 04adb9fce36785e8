// A front cache by itself: which blocks it keeps, which it gives out, which it lets go.
#include "cenote/structures/front_cache.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "cenote/structures/block_heap.hpp"
#include "support/addresses.hpp"

namespace cenote {
namespace {

using test::granule;
constexpr std::uint64_t stream = 17;
constexpr std::size_t plenty = 64 * MiB;

class front_cache_of_a_heap : public testing::Test {
 protected:
  front_cache_of_a_heap() : owner_(heap_.create_owner()), cache_(heap_.blocks(), heap_.directory()) {
    heap_.add_chunk({reinterpret_cast<std::byte*>(0x7f00'0000'0000), plenty}, owner_, 0);
    cache_.assign(stream);
  }

  void* take_from_heap(std::size_t bytes, std::optional<owner_index> keeper = {}) {
    return heap_.take(heap_.find(owner_, bytes, granule), bytes, granule, keeper);
  }

  bool give(const void* block, std::size_t budget = plenty) { return cache_.give(stream, block, budget, &spilled_); }

  /// Passes what was spilled to the heap; how many blocks it was.
  std::size_t settle_spilled() {
    std::size_t count = 0;
    for (; spilled_ != no_block; ++count) {
      const block_index next = heap_[spilled_].free_next;
      heap_.blocks()[spilled_].is_cached = false;
      heap_.give(spilled_, owner_, 0);
      spilled_ = next;
    }
    cache_.check();
    heap_.check();
    return count;
  }

  block_heap heap_;
  owner_index owner_;
  front_cache cache_;
  block_index spilled_ = no_block;
};

TEST_F(front_cache_of_a_heap, gives_the_newest_block_of_exactly_the_size) {
  void* const first = take_from_heap(4 * granule);
  void* const second = take_from_heap(4 * granule);
  void* const other = take_from_heap(5 * granule);
  for (void* const block : {first, second, other}) ASSERT_TRUE(give(block));
  EXPECT_EQ(cache_.bytes(), 13 * granule);
  EXPECT_EQ(cache_.take(stream, 3 * granule), nullptr);
  EXPECT_EQ(cache_.take(stream, 4 * granule), second);
  EXPECT_EQ(cache_.take(stream, 4 * granule), first);
  EXPECT_EQ(cache_.take(stream, 4 * granule), nullptr);
  EXPECT_EQ(cache_.take(stream, 5 * granule), other);
  EXPECT_EQ(cache_.hits(), 3u);
  EXPECT_EQ(cache_.bytes(), 0u);
}

TEST_F(front_cache_of_a_heap, takes_and_gives_for_no_other_stream) {
  void* const block = take_from_heap(granule);
  EXPECT_FALSE(cache_.give(stream + 1, block, plenty, &spilled_));
  ASSERT_TRUE(give(block));
  EXPECT_EQ(cache_.take(stream + 1, granule), nullptr);
  EXPECT_FALSE(cache_.assign(stream + 1)) << "it is not empty";
  EXPECT_EQ(cache_.take(stream, granule), block);
  EXPECT_TRUE(cache_.assign(stream + 1));
  EXPECT_FALSE(give(block));
}

TEST_F(front_cache_of_a_heap, does_not_keep_what_is_no_block_in_use) {
  void* const block = take_from_heap(4 * granule);
  EXPECT_FALSE(give(static_cast<std::byte*>(block) + granule));
  EXPECT_FALSE(give(static_cast<std::byte*>(block) + 1));
  EXPECT_FALSE(give(&heap_));
  ASSERT_TRUE(give(block));
  EXPECT_FALSE(give(block)) << "a second free";
  EXPECT_EQ(heap_.taken_at(block), no_block) << "which the heap sees as well";
}

TEST_F(front_cache_of_a_heap, leaves_blocks_of_a_capture_alone) { EXPECT_FALSE(give(take_from_heap(granule, owner_))); }

TEST_F(front_cache_of_a_heap, spills_the_older_half_of_a_shelf_that_is_full) {
  std::vector<void*> blocks;
  for (int i = 0; i < 33; ++i) blocks.push_back(take_from_heap(granule));
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(give(blocks[static_cast<std::size_t>(i)]));
  EXPECT_EQ(spilled_, no_block);
  EXPECT_FALSE(cache_.give(stream, blocks.back(), plenty, nullptr)) << "nothing may be spilled";
  ASSERT_TRUE(give(blocks.back()));
  EXPECT_EQ(settle_spilled(), 16u);
  for (std::size_t newest = 33; newest > 16; --newest) EXPECT_EQ(cache_.take(stream, granule), blocks[newest - 1]);
  EXPECT_EQ(cache_.take(stream, granule), nullptr);
}

TEST_F(front_cache_of_a_heap, wants_twice_as_many_each_time_that_a_size_is_missed_again) {
  std::vector<std::uint32_t> wanted;
  for (int i = 0; i < 7; ++i) wanted.push_back(cache_.restock(stream, granule, plenty));
  EXPECT_EQ(wanted, (std::vector<std::uint32_t>{1, 2, 4, 8, 16, 16, 16}));
  EXPECT_EQ(cache_.restock(stream, 2 * granule, plenty), 1u) << "a size that it has not been asked for";
  EXPECT_EQ(cache_.restock(stream + 1, granule, plenty), 1u) << "another stream's";
}

TEST_F(front_cache_of_a_heap, wants_fewer_after_a_shelf_was_full) {
  for (int i = 0; i < 5; ++i) cache_.restock(stream, granule, plenty);
  for (int i = 0; i < 33; ++i) ASSERT_TRUE(give(take_from_heap(granule)));
  settle_spilled();
  while (cache_.take(stream, granule) != nullptr) {
  }
  EXPECT_EQ(cache_.restock(stream, granule, plenty), 16u) << "half of 16, and twice that";
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 33; ++k) ASSERT_TRUE(give(take_from_heap(granule)));
    settle_spilled();
  }
  while (cache_.take(stream, granule) != nullptr) {
  }
  EXPECT_LT(cache_.restock(stream, granule, plenty), 16u);
}

TEST_F(front_cache_of_a_heap, stocks_what_was_brought_for_it_and_no_more_than_a_share_of_its_budget) {
  constexpr std::size_t budget = 64 * granule;
  for (int i = 0; i < 4; ++i) cache_.restock(stream, 2 * granule, budget);
  EXPECT_EQ(cache_.restock(stream, 2 * granule, budget), 4u) << "an eighth of the budget";
  void* const brought = take_from_heap(2 * granule);
  EXPECT_FALSE(cache_.stock(stream, heap_.taken_at(take_from_heap(3 * granule)))) << "a size that has no shelf";
  EXPECT_FALSE(cache_.stock(stream + 1, heap_.taken_at(brought)));
  ASSERT_TRUE(cache_.stock(stream, heap_.taken_at(brought)));
  EXPECT_EQ(heap_.taken_at(brought), no_block) << "to everybody else it is free";
  EXPECT_EQ(cache_.bytes(), 2 * granule);
  cache_.check();
  EXPECT_EQ(cache_.take(stream, 2 * granule), brought);
}

TEST_F(front_cache_of_a_heap, wants_no_more_than_its_budget_has_room_for) {
  constexpr std::size_t budget = 64 * granule;
  for (int i = 0; i < 5; ++i) cache_.restock(stream, granule, budget);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(give(take_from_heap(2 * granule), budget));
  EXPECT_EQ(cache_.restock(stream, granule, budget), 4u);
  ASSERT_TRUE(give(take_from_heap(3 * granule), budget));
  EXPECT_EQ(cache_.restock(stream, granule, budget), 1u);
}

TEST_F(front_cache_of_a_heap, spills_a_shelf_for_another_size_with_the_same_place) {
  void* const small = take_from_heap(granule);
  void* const large = take_from_heap(256 * granule);  // 256 ^ 256 >> 8 is 257, whose place is that of 1
  ASSERT_TRUE(give(small));
  ASSERT_TRUE(give(large));
  EXPECT_EQ(settle_spilled(), 1u);
  EXPECT_EQ(cache_.take(stream, granule), nullptr);
  EXPECT_EQ(cache_.take(stream, 256 * granule), large);
}

TEST_F(front_cache_of_a_heap, holds_no_more_than_its_budget_and_no_block_above_an_eighth_of_it) {
  constexpr std::size_t budget = 16 * granule;
  EXPECT_FALSE(give(take_from_heap(3 * granule), budget));
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(give(take_from_heap(2 * granule), budget));
    ASSERT_LE(cache_.bytes(), budget);
  }
  EXPECT_EQ(spilled_, no_block);
  ASSERT_TRUE(give(take_from_heap(granule), budget));
  EXPECT_EQ(settle_spilled(), 8u);
  EXPECT_EQ(cache_.bytes(), granule);
}

TEST_F(front_cache_of_a_heap, is_empty_once_it_is_drained) {
  std::set<block_index> given;
  for (std::size_t i = 1; i < 20; ++i) {
    void* const block = take_from_heap(i * granule);
    given.insert(heap_.taken_at(block));
    ASSERT_TRUE(give(block));
  }
  std::set<block_index> drained;
  for (block_index i = cache_.drain(); i != no_block; i = heap_[i].free_next) drained.insert(i);
  EXPECT_EQ(drained, given);
  EXPECT_EQ(cache_.bytes(), 0u);
  EXPECT_EQ(cache_.drain(), no_block);
}

TEST_F(front_cache_of_a_heap, loses_and_doubles_no_block_in_a_random_history) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    std::map<void*, std::size_t> in_use;
    for (int step = 0; step < 4'000; ++step) {
      const std::size_t bytes = granule * (1 + random() % (std::size_t{1} << (random() % 10)));
      if (random() % 2 == 0 || in_use.empty()) {
        void* block = cache_.take(stream, bytes);
        if (block == nullptr) block = take_from_heap(bytes);
        ASSERT_TRUE(in_use.emplace(block, bytes).second) << "handed out twice";
        ASSERT_EQ(heap_[heap_.taken_at(block)].bytes(), bytes);
      } else {
        const auto freed = std::next(in_use.begin(), static_cast<std::ptrdiff_t>(random() % in_use.size()));
        const block_index index = heap_.taken_at(freed->first);
        ASSERT_NE(index, no_block);
        if (!give(freed->first, 1 * MiB)) heap_.give(index, owner_, 0);
        in_use.erase(freed);
      }
      if (step % 64 == 0) spilled_ = spilled_ == no_block ? cache_.drain() : spilled_;
      settle_spilled();
      ASSERT_FALSE(HasFatalFailure());
    }
    for (const auto& [block, bytes] : in_use) heap_.give(heap_.taken_at(block), owner_, 0);
    spilled_ = cache_.drain();
    settle_spilled();
    ASSERT_EQ(heap_.largest_free(owner_), plenty) << "all is one block again";
  }
}

}  // namespace
}  // namespace cenote
