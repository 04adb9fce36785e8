// The free blocks of one owner, by size: a block that fits is found in constant time.
//
// How it works (two-level segregated fit)
//   1. Sizes, in granules of 256 bytes, fall into bins: 16 to each power of two, exact ones below 16 granules.
//   2. A bitmap says which powers of two, and one each says which of their bins, hold a block.
//   3. find() looks at a few blocks of the wanted size's own bin, and takes the smallest that fits; else the smallest
//   of
//      a few in the first non-empty bin above, where all fit: two bit scans. A search that began above the own bin, as
//      is usual, would miss the block of just that size: recorded workloads needed up to 3 % more memory.
//
// Invariants
//   I1  a bit is set if and only if its bin is not empty
//   I2  every block in a bin is free, has the bin's size, and is linked both ways
//   I3  free_bytes() is the sum of their sizes
//
// Threads: none of its own; the owner locks.
// Cost: O(1) for every operation; 1.9 KiB of host memory an index.
// Source: M. Masmano, I. Ripoll, A. Crespo, J. Real, "TLSF: a new dynamic memory allocator for real-time systems",
// ECRTS 2004.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cenote/structures/block.hpp"

namespace cenote::inline v1 {

class free_index {
 public:
  free_index();

  void insert(block_table& blocks, block_index index) noexcept;
  void remove(block_table& blocks, block_index index) noexcept;

  /// A free block of at least `bytes` (a multiple of the granularity), or no_block. A thorough search looks at all
  /// blocks of a bin in step 3.
  block_index find(const block_table& blocks, std::size_t bytes, bool is_thorough = false) const noexcept;

  /// The size of the largest block, 0 if there is none. For reports: it walks one bin.
  std::size_t largest_bytes(const block_table& blocks) const noexcept;

  /// Calls `visit(block_index)` for each block; `visit` must not change the index.
  template <class Visit>
  void for_each(const block_table& blocks, Visit&& visit) const {
    for (const auto& level : heads_) {
      for (block_index i : level) {
        for (; i != no_block; i = blocks[i].free_next) visit(i);
      }
    }
  }

  /// The same for the blocks of the bins that hold blocks of `bytes` and more, the smallest bin first. Stops where
  /// `visit` returns false.
  template <class Visit>
  void for_each_from(const block_table& blocks, std::size_t bytes, Visit&& visit) const {
    for (place from = place_of(bytes); from.level < level_count;) {
      block_index i = first_at_or_above(from);
      if (i == no_block) return;
      from = above(place_of(blocks[i].bytes()));
      for (; i != no_block; i = blocks[i].free_next) {
        if (!visit(i)) return;
      }
    }
  }

  bool empty() const noexcept { return levels_ == 0; }
  std::size_t free_bytes() const noexcept { return free_bytes_; }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check(const block_table& blocks) const;

 private:
  static constexpr unsigned bin_bits = 4;
  static constexpr unsigned bins_per_level = 1u << bin_bits;
  static constexpr unsigned level_count = 29;  // up to max_block_bytes
  static constexpr unsigned most_tries = 8;    // blocks of a bin that are looked at

  struct place {
    unsigned level;
    unsigned bin;
  };
  static place place_of(std::size_t bytes) noexcept;
  static place above(place bin) noexcept {
    return bin.bin + 1 < bins_per_level ? place{bin.level, bin.bin + 1} : place{bin.level + 1, 0};
  }
  block_index first_at_or_above(place from) const noexcept;
  block_index smallest_of(const block_table& blocks, block_index head, std::size_t bytes,
                          unsigned tries) const noexcept;

  std::uint64_t levels_ = 0;
  std::array<std::uint16_t, level_count> bins_{};
  std::array<std::array<block_index, bins_per_level>, level_count> heads_;
  std::size_t free_bytes_ = 0;
};

}  // namespace cenote::inline v1
