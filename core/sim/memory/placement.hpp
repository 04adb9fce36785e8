// Where managed memory is wanted: what cuMemPrefetchAsync and cuMemAdvise leave behind for cuMemRangeGetAttribute.
//
// Nothing moves, as the simulated cards and the host share their memory; what was asked for is written down.
//
// 1. It is kept by page: a range is widened to whole pages when something is asked for it, and when it is looked at, so
//    that two pieces of a pool that share a page share its placement.
// 2. A prefetch is written down at the call, not when it runs in its stream: the driver answers what was requested last
//    and not whether it has begun.
// 3. Runs of pages with one placement are one entry of a map, which holds up to the next entry:
//
//        address:   0          0x7000                0x9000
//        entry:     [nothing ) [ prefetched to 0   ) [nothing ...
//
// 4. Pages are forgotten when their addresses are given back: by the free of managed memory, and by a managed pool with
//    its segment. A piece of a pool that is freed and handed out again is where it was, as with the real driver.
//
// Invariants: I1 there is an entry at address 0; I2 neighbouring entries differ.
// Threads: guarded by driver_mutex(). Cost: O(log entries + entries in the range).
// Source: the answers of an H100, driver 580.159.04, to every advice and attribute; CUDA driver API, section Unified
// Addressing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "sim/ground/location.hpp"
#include "sim/ground/settings.hpp"

namespace cenote::sim {

struct page_placement {
  memory_location preferred = nowhere;
  memory_location prefetched = nowhere;
  bool read_mostly = false;
  std::uint64_t accessed_by_devices = 0;  ///< one bit for each ordinal
  static_assert(max_devices <= 64);
  bool accessed_by_host = false;

  bool operator==(const page_placement&) const = default;
};

class placement_map {
 public:
  /// `change(placement)` for every page of the range.
  template <class Change>
  void change(std::uintptr_t address, std::size_t bytes, Change&& change) {
    const auto [first, last] = entries(address, bytes);
    for (auto at = first; at != last; ++at) {
      change(at->second);
    }
    merge(first, last);
  }

  void forget(std::uintptr_t address, std::size_t bytes) {
    change(address, bytes, [](page_placement& placement) { placement = {}; });
  }

  /// What the pages of the range were asked for, one for each run of them; never empty.
  std::vector<page_placement> of(std::uintptr_t address, std::size_t bytes) const;

 private:
  using map = std::map<std::uintptr_t, page_placement>;

  /// The entries of exactly the range's pages: those at its ends are split.
  std::pair<map::iterator, map::iterator> entries(std::uintptr_t address, std::size_t bytes);
  map::iterator split(std::uintptr_t address);
  void merge(map::iterator first, map::iterator last);

  map from_{{0, {}}};
};

/// Of all managed memory.
placement_map& placements();

}  // namespace cenote::sim
