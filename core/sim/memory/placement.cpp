#include "sim/memory/placement.hpp"

#include <iterator>

#include "sim/ground/ranges.hpp"
#include "sim/memory/address_space.hpp"

namespace cenote::sim {
namespace {

std::uintptr_t page_of(std::uintptr_t address) { return address & ~(page_bytes - 1); }

}  // namespace

placement_map::map::iterator placement_map::split(std::uintptr_t address) {
  const auto at = std::prev(from_.upper_bound(address));
  return at->first == address ? at : from_.emplace_hint(std::next(at), address, at->second);
}

std::pair<placement_map::map::iterator, placement_map::map::iterator> placement_map::entries(std::uintptr_t address,
                                                                                             std::size_t bytes) {
  const auto first = split(page_of(address));
  return {first, split(round_up(address + bytes, page_bytes))};
}

void placement_map::merge(map::iterator first, map::iterator last) {
  const auto end = std::next(last);
  for (auto at = first; at != end;) {
    at = at != from_.begin() && std::prev(at)->second == at->second ? from_.erase(at) : std::next(at);
  }
}

std::vector<page_placement> placement_map::of(std::uintptr_t address, std::size_t bytes) const {
  std::vector<page_placement> found;
  for (auto at = std::prev(from_.upper_bound(page_of(address))); at != from_.end() && at->first < address + bytes;
       ++at) {
    found.push_back(at->second);
  }
  return found;
}

placement_map& placements() {
  static placement_map* const map = new placement_map;
  return *map;
}

}  // namespace cenote::sim
