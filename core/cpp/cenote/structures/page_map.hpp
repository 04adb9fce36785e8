// The page map of a reserved range: which of its addresses have physical memory under them, in pages of which sizes.
//
//     slot   0   1   2   3   4   5   6   7      a slot is 2 MiB, the smallest page
//          [ 4 MiB ][ 2 ]  .  [    8 MiB     ]  a page of n slots lies at a multiple of n slots from the base
//
// How it works
//   1. Each slot has a byte: 0 without a page, else 1 + log2 of the slots of its page. Since a page lies at a multiple
//      of its own size, the byte is enough to find where its page begins.
//   2. A slot has a count of pins, too. A page with a pinned slot is pinned whole.
//   3. Only as many slots exist as the highest mapped one needs.
//
// Invariants
//   I1  mapped_bytes() is the sum of the sizes of all pages
//   I2  a slot that is pinned has a page
//
// Threads: none of its own; the owner locks. Cost: O(slots of the page) for each operation; 5 bytes a slot.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cenote/ground/bytes.hpp"

namespace cenote::inline v1 {

/// Physical memory of one handle, and where it is mapped.
struct page {
  std::byte* address;
  std::size_t bytes;
};

class page_map {
 public:
  /// The smallest page, and the largest: what the driver maps at least, and beyond which a GiB costs the host no less
  /// (H200, driver 580: 2.0 ms a GiB at 32 MiB, 1.6 at 128 MiB).
  static constexpr std::size_t slot_bytes = 2 * MiB;
  static constexpr std::size_t max_page_bytes = 32 * MiB;

  /// `base` is a multiple of max_page_bytes.
  explicit page_map(std::byte* base) noexcept : base_(base) {}

  std::byte* base() const noexcept { return base_; }
  std::size_t mapped_bytes() const noexcept { return mapped_bytes_; }

  bool is_mapped(const std::byte* address) const noexcept { return code_at(slot_of(address)) != 0; }

  /// The page that `address` lies in; one of 0 bytes where there is none.
  page page_at(const std::byte* address) const noexcept {
    const std::size_t slot = slot_of(address);
    const std::uint8_t code = code_at(slot);
    if (code == 0) return {base_ + slot * slot_bytes, 0};
    const std::size_t slots = std::size_t{1} << (code - 1);
    return {base_ + (slot & ~(slots - 1)) * slot_bytes, slots * slot_bytes};
  }

  /// All pages, in order of address.
  std::vector<page> all() const;

  /// The largest size that a page at `address` may have without passing `end`.
  std::size_t largest_page_at(const std::byte* address, const std::byte* end) const noexcept;

  /// Throws std::bad_alloc; nothing has changed then.
  void reserve_until(const std::byte* end);

  /// After reserve_until: the slots had no page.
  void insert(page mapped) noexcept;
  void remove(page unmapped) noexcept;

  /// Counts one pin more, or one less, at each slot that the bytes lie over: at least one, and all have pages.
  void pin(const std::byte* address, std::size_t bytes) noexcept;
  void unpin(const std::byte* address, std::size_t bytes) noexcept;

  /// Whether any slot of a page is pinned.
  bool is_pinned(const page& whole) const noexcept;

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  std::size_t slot_of(const std::byte* address) const noexcept {
    return static_cast<std::size_t>(address - base_) / slot_bytes;
  }
  std::uint8_t code_at(std::size_t slot) const noexcept { return slot < codes_.size() ? codes_[slot] : 0; }
  void fill(page part, std::uint8_t code) noexcept;

  std::byte* base_;
  std::vector<std::uint8_t> codes_;
  std::vector<std::uint32_t> pins_;  // of the same slots
  std::size_t mapped_bytes_ = 0;
};

}  // namespace cenote::inline v1
