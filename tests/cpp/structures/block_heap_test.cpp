#include "cenote/structures/block_heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "support/addresses.hpp"

namespace cenote {
namespace {

constexpr owner_index retired = 0;  // a heap's own, which nobody asks

using test::address;
using test::granule;

/// Blocks as intervals in a map by address: the obvious way to do what block_heap does.
class heap_model {
 public:
  struct interval {
    std::size_t bytes;
    bool is_free;
    owner_index owner;
    stamp freed_at;
    bool is_kept;
    std::byte* chunk;
  };

  void add_chunk(std::byte* base, std::size_t bytes, owner_index owner, stamp freed_at) {
    blocks[base] = {bytes, true, owner, freed_at, false, base};
  }

  /// The block that `wanted` bytes at `alignment` are taken from, for an address that was handed out.
  std::map<std::byte*, interval>::iterator holding(std::byte* at) { return std::prev(blocks.upper_bound(at)); }

  void take(std::byte* at, std::size_t bytes, std::optional<owner_index> keeper) {
    const auto place = holding(at);
    const auto [base, whole] = *place;
    const auto lead = static_cast<std::size_t>(at - base);
    blocks.erase(place);
    interval piece = whole;
    if (lead != 0) {
      piece.bytes = lead;
      blocks[base] = piece;
    }
    if (lead + bytes != whole.bytes) {
      piece.bytes = whole.bytes - lead - bytes;
      blocks[at + bytes] = piece;
    }
    blocks[at] = {bytes, false, keeper.value_or(whole.owner), 0, keeper.has_value(), whole.chunk};
  }

  void give(std::byte* at, owner_index owner, stamp freed_at) {
    interval& freed = blocks.at(at);
    freed.is_free = true;
    if (!freed.is_kept) {
      freed.owner = owner;
    } else if (freed.owner != owner) {
      freed.owner = retired;
    }
    freed.is_kept = false;
    freed.freed_at = freed_at;
    merge();
  }

  void reown(owner_index from, stamp until, owner_index to, stamp freed_at) {
    for (auto& [base, b] : blocks) {
      if (!b.is_free || b.owner != from || b.freed_at > until) continue;
      b.owner = to;
      b.freed_at = freed_at;
    }
    merge();
  }

  std::map<std::byte*, interval> blocks;

 private:
  void merge() {
    for (auto lower = blocks.begin(); lower != blocks.end();) {
      const auto upper = std::next(lower);
      if (upper == blocks.end()) return;
      const bool joins = lower->second.is_free && upper->second.is_free && lower->second.owner == upper->second.owner &&
                         lower->second.chunk == upper->second.chunk;
      if (!joins) {
        lower = upper;
        continue;
      }
      lower->second.bytes += upper->second.bytes;
      lower->second.freed_at = std::max(lower->second.freed_at, upper->second.freed_at);
      blocks.erase(upper);
    }
  }
};

/// A random history of one heap and its model.
class history {
 public:
  explicit history(unsigned seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) owners_.push_back(heap_.create_owner());
  }

  void step() {
    switch (random_() % 16) {
      case 0:
        add_chunk();
        break;
      case 1:
        remove_chunks();
        break;
      case 2:
        reown();
        break;
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
      case 8:
        give();
        break;
      default:
        take();
        break;
    }
    ++now_;
    heap_.check();
    compare();
  }

  void finish() {
    while (!taken_.empty()) give();
    owners_.push_back(retired);
    for (const owner_index owner : owners_) {
      if (owner == owners_.front()) continue;
      heap_.reown(owner, now_, owners_.front(), now_);
      model_.reown(owner, now_, owners_.front(), now_);
    }
    heap_.check();
    compare();
    EXPECT_EQ(heap_.remove_free_chunks(owners_.front(), [](const chunk&) { return true; }).size(), chunks_)
        << "every chunk has become one free block again";
    EXPECT_EQ(heap_.chunk_bytes(), 0u);
    heap_.check();
  }

 private:
  std::size_t random_bytes() { return granule * (1 + random_() % (std::size_t{1} << (random_() % 13))); }
  owner_index random_owner() { return owners_[random_() % owners_.size()]; }

  void add_chunk() {
    if (chunks_ >= 6) return;
    // Most chunks touch the one before: blocks must not be joined across the border.
    const std::size_t bytes = granule * (1 + random_() % 16384);
    std::byte* const base = next_base_ + (random_() % 3 == 0 ? granule * (random_() % 5000) : 0);
    next_base_ = base + bytes;
    const owner_index owner = random_owner();
    heap_.add_chunk({base, bytes}, owner, now_);
    model_.add_chunk(base, bytes, owner, now_);
    ++chunks_;
  }

  void take() {
    const owner_index owner = random_owner();
    const std::size_t bytes = random_bytes();
    const std::size_t alignment = granule << (random_() % 2 == 0 ? 0 : random_() % 13);  // up to 1 MiB
    const block_index found = heap_.find(owner, bytes, alignment);
    if (found == no_block) {
      ASSERT_FALSE(must_be_found(owner, bytes + alignment - granule)) << bytes << " at " << alignment;
      return;
    }
    std::byte* const base = heap_[found].address;
    const auto expected = model_.blocks.find(base);
    ASSERT_NE(expected, model_.blocks.end());
    ASSERT_TRUE(expected->second.is_free);
    ASSERT_EQ(expected->second.owner, owner);
    ASSERT_EQ(expected->second.bytes, heap_[found].bytes());
    ASSERT_EQ(expected->second.freed_at, heap_[found].freed_at);
    std::optional<owner_index> keeper;
    if (random_() % 4 == 0) keeper = random_owner();
    auto* const at = static_cast<std::byte*>(heap_.take(found, bytes, alignment, keeper));
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(at) % alignment, 0u);
    ASSERT_GE(at, base);
    ASSERT_LE(at + bytes, base + expected->second.bytes);
    model_.take(at, bytes, keeper);
    taken_.push_back(at);
  }

  void give() {
    if (taken_.empty()) return;
    std::swap(taken_[random_() % taken_.size()], taken_.back());
    std::byte* const at = taken_.back();
    taken_.pop_back();
    const owner_index owner = random_owner();
    const block_index given = heap_.taken_at(at);
    ASSERT_NE(given, no_block);
    ASSERT_EQ(heap_[given].bytes(), model_.blocks.at(at).bytes);
    heap_.give(given, owner, now_);
    model_.give(at, owner, now_);
    ASSERT_EQ(heap_.taken_at(at), no_block) << "a second free of one block would be seen";
  }

  void reown() {
    const owner_index from = random_owner();
    const owner_index to = random_owner();
    if (from == to) return;
    const stamp until = random_() % (now_ + 1);
    heap_.reown(from, until, to, now_);
    model_.reown(from, until, to, now_);
  }

  void remove_chunks() {
    const owner_index owner = random_owner();
    const std::size_t most = granule * (random_() % 20'000);
    std::size_t previous = ~std::size_t{0};
    const auto removed = heap_.remove_free_chunks(owner, [&](const chunk& c) {
      EXPECT_LE(c.bytes, previous) << "largest first";
      previous = c.bytes;
      return c.bytes <= most;
    });
    std::set<std::byte*> expected;
    for (const auto& [base, b] : model_.blocks) {
      if (b.is_free && b.owner == owner && b.bytes == chunk_bytes(b.chunk) && b.bytes <= most) expected.insert(base);
    }
    std::set<std::byte*> bases;
    for (const chunk& c : removed) bases.insert(c.base);
    ASSERT_EQ(bases, expected);
    for (std::byte* const base : bases) model_.blocks.erase(base);
    chunks_ -= bases.size();
  }

  std::size_t chunk_bytes(const std::byte* base) const {
    std::size_t bytes = 0;
    for (const auto& [at, b] : model_.blocks) bytes += b.chunk == base ? b.bytes : 0;
    return bytes;
  }

  bool must_be_found(owner_index owner, std::size_t bytes) const {
    const std::size_t width = std::max(std::bit_floor(bytes) / 16, granule);
    const std::size_t enough = (bytes + width - 1) / width * width;
    return std::any_of(model_.blocks.begin(), model_.blocks.end(), [&](const auto& entry) {
      const auto& b = entry.second;
      return b.is_free && b.owner == owner && b.bytes >= enough;
    });
  }

  void compare() const {
    std::map<owner_index, std::size_t> free_bytes;
    std::map<owner_index, std::size_t> largest;
    std::size_t in_use = 0;
    std::size_t total = 0;
    for (const auto& [at, b] : model_.blocks) {
      total += b.bytes;
      if (b.is_free) {
        free_bytes[b.owner] += b.bytes;
        largest[b.owner] = std::max(largest[b.owner], b.bytes);
      } else {
        in_use += b.bytes;
        ASSERT_EQ(heap_[heap_.taken_at(at)].bytes(), b.bytes);
      }
    }
    ASSERT_EQ(heap_.bytes_in_use(), in_use);
    ASSERT_EQ(heap_.blocks_in_use(), taken_.size());
    ASSERT_EQ(heap_.chunk_bytes(), total);
    ASSERT_EQ(heap_.chunk_count(), chunks_);
    for (const owner_index owner : owners_) {
      ASSERT_EQ(heap_.free_bytes(owner), free_bytes[owner]) << "owner " << owner;
      ASSERT_EQ(heap_.largest_free(owner), largest[owner]) << "owner " << owner;
    }
  }

  std::mt19937_64 random_;
  block_heap heap_;
  heap_model model_;
  std::vector<owner_index> owners_;
  std::vector<std::byte*> taken_;
  std::byte* next_base_ = address(0x7f00'0000'0100);
  std::size_t chunks_ = 0;
  stamp now_ = 1;
};

TEST(block_heap, refuses_a_chunk_that_overlaps_another_and_one_that_is_too_large) {
  block_heap heap;
  const owner_index owner = heap.create_owner();
  std::byte* const base = address(0x7f00'0000'0000);
  heap.add_chunk({base + 4 * granule, 4 * granule}, owner, 0);
  for (const std::size_t first : {1, 4, 5, 7}) {
    EXPECT_THROW(heap.add_chunk({base + first * granule, 4 * granule}, owner, 0), std::logic_error) << first;
  }
  EXPECT_THROW(heap.add_chunk({base + MiB, max_block_bytes + granule}, owner, 0), std::length_error);
  EXPECT_EQ(heap.chunk_bytes(), 4 * granule);
  heap.add_chunk({base, 4 * granule}, owner, 0);
  heap.add_chunk({base + 8 * granule, 4 * granule}, owner, 0);
  heap.add_chunk({base + MiB, max_block_bytes}, owner, 0);
  heap.check();
}

class block_heap_history : public testing::TestWithParam<unsigned> {};

TEST_P(block_heap_history, agrees_with_a_map_of_intervals) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  history both(GetParam());
  for (int i = 0; i < 1'200; ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i);
    ASSERT_NO_THROW(both.step());
    if (HasFatalFailure()) return;
  }
  both.finish();
}

INSTANTIATE_TEST_SUITE_P(seeds, block_heap_history, testing::Range(1u, 21u));

class block_heap_of_one_chunk : public testing::Test {
 protected:
  static constexpr std::size_t chunk_size = 1 * MiB;

  void SetUp() override { heap.add_chunk({address(0x7f00'0000'0000), chunk_size}, first, 1); }
  void TearDown() override { heap.check(); }

  void* take(owner_index owner, std::size_t bytes, std::optional<owner_index> keeper = {}) {
    const block_index found = heap.find(owner, bytes, granule);
    return found == no_block ? nullptr : heap.take(found, bytes, granule, keeper);
  }

  block_heap heap;
  owner_index first = heap.create_owner();
  owner_index second = heap.create_owner();
};

TEST_F(block_heap_of_one_chunk, gives_one_owner_nothing_of_anothers) {
  EXPECT_EQ(take(second, granule), nullptr);
  EXPECT_NE(take(first, granule), nullptr);
}

TEST_F(block_heap_of_one_chunk, keeps_the_later_stamp_when_blocks_merge) {
  void* const a = take(first, granule);
  void* const b = take(first, granule);
  heap.give(heap.taken_at(a), first, 9);
  heap.give(heap.taken_at(b), first, 3);
  EXPECT_EQ(heap[heap.find(first, chunk_size, granule)].freed_at, 9u);
}

TEST_F(block_heap_of_one_chunk, does_not_merge_free_neighbours_of_different_owners) {
  void* const a = take(first, chunk_size / 2);
  heap.give(heap.taken_at(a), second, 2);
  EXPECT_EQ(heap.largest_free(first), chunk_size / 2);
  EXPECT_EQ(heap.largest_free(second), chunk_size / 2);
}

TEST_F(block_heap_of_one_chunk, returns_a_kept_block_to_its_keeper) {
  void* const a = take(first, chunk_size, second);
  heap.give(heap.taken_at(a), second, 2);
  EXPECT_EQ(heap.free_bytes(second), chunk_size);
}

TEST_F(block_heap_of_one_chunk, retires_a_kept_block_that_another_frees) {
  void* const a = take(first, chunk_size, second);
  heap.give(heap.taken_at(a), first, 2);
  EXPECT_EQ(heap.free_bytes(first), 0u);
  EXPECT_EQ(heap.free_bytes(second), 0u);
  EXPECT_EQ(heap.bytes_in_use(), 0u);
  heap.check();
}

TEST_F(block_heap_of_one_chunk, refuses_a_second_chunk_at_the_same_address) {
  EXPECT_THROW(heap.add_chunk({address(0x7f00'0000'0000), granule}, first, 1), std::logic_error);
  EXPECT_EQ(heap.chunk_bytes(), chunk_size);
}

TEST_F(block_heap_of_one_chunk, uses_the_number_of_a_destroyed_owner_again) {
  heap.destroy_owner(second);
  EXPECT_EQ(heap.create_owner(), second);
}

TEST_F(block_heap_of_one_chunk, finds_nothing_for_sizes_near_2_to_the_63) {
  EXPECT_EQ(heap.find(first, std::size_t{1} << 63, std::size_t{1} << 62), no_block);
}

}  // namespace
}  // namespace cenote
