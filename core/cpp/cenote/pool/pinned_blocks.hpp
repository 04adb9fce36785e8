// The pins of a pool: which blocks others know by their address, whether they are in use still or not.
//
//     block, pinned twice   │exported ×2│        freed since, and partly used again
//     pages                [ p1  ][ p2  ]        stay until the last pin is gone
//
// How it works
//   1. A pin is known by the address of the block and its kind, and counted. If another block begins at that address by
//      the second time, the larger of both stays pinned until the last of the pins is gone.
//   2. Over a range of pages each entry is counted at the slots under it (page_map), so that nobody who looks for pages
//      to take has to look here. A chunk is compared with all entries, when it might be given back.
//
// Invariant
//   I1  over a range, each slot under an entry is pinned
//
// Threads: none of its own; the pool locks. Cost: O(log pins) and O(slots of the block); overlaps() is O(pins). Nothing
// for what allocates and frees.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "cenote/pool/pool_pin.hpp"
#include "cenote/structures/block.hpp"
#include "cenote/structures/paged_range.hpp"

namespace cenote::inline v1::pool {

class pinned_blocks {
 public:
  /// `pages` are those under the block, or null; for the other calls the same. Nothing has changed if it throws
  /// std::bad_alloc.
  void add(const chunk& block, pin_kind kind, paged_range* pages);

  /// False, and nothing has changed, where there is no such pin.
  bool remove(const void* address, pin_kind kind, paged_range* pages) noexcept;

  bool is_empty() const noexcept { return entries_.empty(); }
  bool overlaps(const chunk& memory) const noexcept;

  /// In order of address.
  std::vector<pool_pin> list() const;

  /// Throws std::logic_error naming the invariant that does not hold.
  void check(const paged_range* pages) const;

 private:
  std::map<std::pair<const std::byte*, pin_kind>, pool_pin> entries_;
};

}  // namespace cenote::inline v1::pool
