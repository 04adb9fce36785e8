// Pages under blocks: against a model in which each slot of 2 MiB has a page or none, over random histories.
#include "cenote/structures/paged_range.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace cenote {
namespace {

constexpr std::size_t slot = page_map::slot_bytes;
constexpr std::size_t range_bytes = 4 * GiB;
std::byte* const range_base = reinterpret_cast<std::byte*>(std::uintptr_t{1} << 40);

class paged_range_test : public testing::Test {
 protected:
  paged_range::request want(std::size_t bytes, std::size_t may_create = 0) const {
    paged_range::request wanted{};
    wanted.bytes = bytes;
    wanted.alignment = default_alignment;
    wanted.own = own;
    wanted.may_create = may_create;
    wanted.page_bytes = slot;
    wanted.may_move_ready = wanted.may_move_own = may_create == 0;
    return wanted;
  }

  /// As a pool does: the plan's pages are there at once.
  std::byte* allocate(const paged_range::request& wanted) {
    const auto plan = range.make_plan(wanted);
    if (!plan) return nullptr;
    finish(*plan);
    return heap[plan->block].address;
  }

  void finish(const paged_range::plan& plan) {
    range.complete(plan, own, 1);
    for (const auto& each : plan.fillings) {
      if (each.from != nullptr) range.was_unmapped({each.from, each.to.bytes});
    }
    for (const page& each : plan.broken) range.was_unmapped(each);
    range.check();
    heap.check();
  }

  void free(std::byte* block, owner_index owner) {
    heap.give(heap.taken_at(block), owner, 1);
    range.check();
  }

  block_heap heap;
  owner_index ready = heap.create_owner();
  owner_index own = heap.create_owner();
  owner_index other = heap.create_owner();
  paged_range range{heap, ready, range_base, range_bytes};
};

TEST_F(paged_range_test, begins_without_a_page) {
  EXPECT_EQ(range.pages().mapped_bytes(), 0u);
  EXPECT_EQ(heap.find(own, 256, 256), no_block);
  EXPECT_FALSE(range.make_plan(want(256)));
}

TEST_F(paged_range_test, makes_as_many_pages_as_a_request_needs) {
  EXPECT_EQ(allocate(want(3 * slot - 256, GiB)), range_base);
  EXPECT_EQ(range.pages().mapped_bytes(), 3 * slot);
  EXPECT_EQ(heap.free_bytes(own), 256u) << "the rest of the last page";
}

TEST_F(paged_range_test, begins_in_what_is_free_before_the_gap) {
  allocate(want(slot / 2, GiB));
  const auto plan = range.make_plan(want(slot, GiB));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->fillings.size(), 1u) << "half of it lies in the first page";
  finish(*plan);
}

TEST_F(paged_range_test, brings_free_pages_from_wherever_they_are) {
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(allocate(want(slot, GiB)));
  for (int i = 0; i < 8; i += 2) free(blocks[i], i % 4 == 0 ? ready : own);
  EXPECT_NE(allocate(want(4 * slot)), nullptr) << "four pages apart serve a block of four";
  EXPECT_EQ(range.pages().mapped_bytes(), 8 * slot);
  EXPECT_EQ(allocate(want(256)), nullptr);
}

TEST_F(paged_range_test, leaves_pages_of_others_and_partly_used_ones) {
  std::byte* const whole = allocate(want(slot, GiB));
  std::byte* const half = allocate(want(slot / 2, GiB));
  std::byte* const rest = allocate(want(slot / 2, GiB));
  static_cast<void>(half);
  free(whole, other);
  free(rest, own);
  EXPECT_EQ(allocate(want(slot)), nullptr);
}

TEST_F(paged_range_test, has_all_as_it_was_after_a_cancelled_plan) {
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(allocate(want(slot, GiB)));
  for (int i = 0; i < 6; i += 2) free(blocks[i], own);
  const std::size_t free_before = heap.free_bytes(own);
  const auto plan = range.make_plan(want(3 * slot));
  ASSERT_TRUE(plan);
  range.cancel(*plan);
  range.check();
  heap.check();
  EXPECT_EQ(heap.free_bytes(own), free_before);
  EXPECT_NE(allocate(want(3 * slot)), nullptr);
}

TEST_F(paged_range_test, breaks_a_page_that_is_too_large_for_the_gap_where_it_may) {
  auto large = want(8 * slot, GiB);
  large.page_bytes = 8 * slot;
  std::byte* const block = allocate(large);
  ASSERT_EQ(range.pages().page_at(block).bytes, 8 * slot);
  // Half a page is in use at the end of each slot, so that no gap has room for a page of eight slots.
  std::vector<std::byte*> fences;
  for (std::size_t i = 0; i < range_bytes / slot - 8; i += 2) {
    auto fence = want(slot, GiB);
    fences.push_back(allocate(fence));
  }
  free(block, ready);
  auto wanted = want(2 * slot);
  wanted.may_break = true;
  const auto plan = range.make_plan(wanted);
  ASSERT_TRUE(plan);
  finish(*plan);
}

TEST_F(paged_range_test, of_two_places_takes_the_one_that_needs_fewer_new_pages) {
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(allocate(want(slot, GiB)));
  free(blocks[1], own);
  free(blocks[2], ready);
  free(blocks[3], own);
  const auto plan = range.make_plan(want(3 * slot, GiB));
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->fillings.empty()) << "blocks of two owners that adjoin need no page";
  finish(*plan);
}

TEST_F(paged_range_test, takes_out_wholly_free_pages_and_no_others) {
  std::byte* const block = allocate(want(4 * slot - 256, GiB));
  std::byte* const last = allocate(want(256, GiB));
  ASSERT_EQ(last, block + 4 * slot - 256);
  free(block, ready);
  const auto pages = range.take_out(ready, GiB);
  EXPECT_EQ(pages.size(), 3u);
  for (const page& each : pages) range.was_unmapped(each);
  range.check();
  EXPECT_EQ(range.pages().mapped_bytes(), slot);
}

TEST_F(paged_range_test, leaves_a_pinned_page_where_it_is) {
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(allocate(want(slot, GiB)));
  range.pin(blocks[2], slot);
  for (int i = 0; i < 6; i += 2) free(blocks[i], i == 2 ? ready : own);
  EXPECT_EQ(allocate(want(3 * slot)), nullptr) << "it is no spare";
  EXPECT_NE(allocate(want(2 * slot)), nullptr);
  EXPECT_TRUE(range.take_out(ready, GiB).empty());
  EXPECT_TRUE(range.is_pinned(blocks[2], slot));
  range.unpin(blocks[2], slot);
  EXPECT_EQ(range.take_out(ready, GiB).size(), 1u);
}

TEST_F(paged_range_test, leaves_a_page_whole_of_which_any_slot_is_pinned) {
  auto large = want(8 * slot, GiB);
  large.page_bytes = 8 * slot;
  std::byte* const block = allocate(large);
  range.pin(block + 5 * slot, 256);
  free(block, ready);
  EXPECT_TRUE(range.is_pinned(block, 8 * slot));
  EXPECT_TRUE(range.take_out(ready, GiB).empty());
  const block_index low = heap.find(ready, 8 * slot, 256);
  ASSERT_NE(low, no_block);
  heap.take_part(low, block, slot / 2);  // so that the page can be of use only in parts, elsewhere
  auto wanted = want(8 * slot);
  wanted.may_break = true;
  EXPECT_FALSE(range.make_plan(wanted));
  range.unpin(block + 5 * slot, 256);
  EXPECT_FALSE(range.is_pinned(block, 8 * slot));
}

TEST_F(paged_range_test, counts_the_pins_of_blocks_that_share_a_page) {
  std::byte* const low = allocate(want(slot / 2, GiB));
  std::byte* const high = allocate(want(slot / 2));
  range.pin(low, slot / 2);
  range.pin(high, slot / 2);
  range.unpin(low, slot / 2);
  free(low, ready);
  free(high, ready);
  EXPECT_TRUE(range.take_out(ready, GiB).empty());
  range.unpin(high, slot / 2);
  EXPECT_EQ(range.take_out(ready, GiB).size(), 1u);
}

TEST_F(paged_range_test, says_so_where_a_pinned_slot_has_no_page) {
  allocate(want(slot, GiB));
  range.pin(range_base, slot);
  range.check();
  range.pin(range_base + slot, slot);
  EXPECT_THROW(range.check(), std::logic_error);
}

/// Blocks never overlap, lie over pages, and no page is under two places; what is cancelled leaves no trace, and what
/// is pinned does not move.
class random_history : public paged_range_test, public testing::WithParamInterface<unsigned> {
 protected:
  struct pinned {
    std::byte* block;
    std::size_t bytes;
    page first;
  };
};

TEST_P(random_history, of_plans_frees_cancels_and_pins_keeps_the_invariants) {
  std::mt19937_64 random(GetParam());
  std::map<std::byte*, std::size_t> live;
  const std::size_t limit = (16 + random() % 64) * slot;
  std::vector<pinned> pins;
  for (int step = 0; step < 1500; ++step) {
    if (random() % 2 == 0 || live.empty()) {
      const std::size_t bytes = 256 + random() % (random() % 8 == 0 ? 12 * slot : slot / 2) / 256 * 256;
      auto wanted = want(bytes);
      const std::size_t held = range.pages().mapped_bytes();
      wanted.may_create = random() % 3 == 0 ? 0 : limit - std::min(limit, held);
      wanted.page_bytes = slot << random() % 4;
      wanted.may_move_own = random() % 2 == 0;
      wanted.may_move_ready = random() % 2 == 0;
      wanted.may_break = random() % 2 == 0;
      wanted.is_tight = random() % 2 == 0;
      wanted.alignment = random() % 8 == 0 ? std::size_t{256} << random() % 10 : 256;
      const auto plan = range.make_plan(wanted);
      if (!plan) continue;
      if (random() % 4 == 0 && plan->broken.empty()) {
        range.cancel(*plan);
      } else {
        std::byte* const block = heap[plan->block].address;
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block) % wanted.alignment, 0u);
        const auto above = live.lower_bound(block);
        ASSERT_TRUE(above == live.end() || block + bytes <= above->first);
        ASSERT_TRUE(above == live.begin() || std::prev(above)->first + std::prev(above)->second <= block);
        finish(*plan);
        live.emplace(block, bytes);
        ASSERT_LE(range.pages().mapped_bytes(), limit);
      }
    } else {
      auto chosen = live.begin();
      std::advance(chosen, static_cast<std::ptrdiff_t>(random() % live.size()));
      free(chosen->first, std::array{own, ready, other}[random() % 3]);
      live.erase(chosen);
    }
    if (random() % 32 == 0 && !live.empty()) {
      auto chosen = live.begin();
      std::advance(chosen, static_cast<std::ptrdiff_t>(random() % live.size()));
      range.pin(chosen->first, chosen->second);
      pins.push_back({chosen->first, chosen->second, range.pages().page_at(chosen->first)});
    }
    for (const pinned& each : pins) {
      ASSERT_TRUE(range.is_pinned(each.block, each.bytes));
      ASSERT_EQ(range.pages().page_at(each.block).address, each.first.address);
      ASSERT_EQ(range.pages().page_at(each.block).bytes, each.first.bytes);
    }
    if (pins.size() > 3) {
      std::swap(pins[random() % pins.size()], pins.back());
      range.unpin(pins.back().block, pins.back().bytes);
      pins.pop_back();
    }
    if (random() % 64 == 0) heap.reown(other, ~stamp{0} >> 24, own, 1);
    if (random() % 128 == 0) {
      for (const page& each : range.take_out(ready, random() % limit)) range.was_unmapped(each);
    }
    range.check();
    heap.check();
  }
}

INSTANTIATE_TEST_SUITE_P(seeds, random_history, testing::Range(0u, 40u));

}  // namespace
}  // namespace cenote
