#include "cenote/pool/pinned_blocks.hpp"

#include <algorithm>
#include <stdexcept>

namespace cenote::inline v1::pool {

void pinned_blocks::add(const chunk& block, pin_kind kind, paged_range* pages) {
  pool_pin& entry =
      entries_.try_emplace({block.base, kind}, pool_pin{block.base, 0, kind, 0}).first->second;  // nothing below throws
  ++entry.count;
  if (block.bytes <= entry.bytes) return;
  if (pages != nullptr) {
    pages->pin(block.base, block.bytes);
    if (entry.bytes != 0) pages->unpin(block.base, entry.bytes);
  }
  entry.bytes = block.bytes;
}

bool pinned_blocks::remove(const void* address, pin_kind kind, paged_range* pages) noexcept {
  const auto place = entries_.find({static_cast<const std::byte*>(address), kind});
  if (place == entries_.end()) return false;
  pool_pin& entry = place->second;
  if (--entry.count != 0) return true;
  if (pages != nullptr) pages->unpin(entry.address, entry.bytes);
  entries_.erase(place);
  return true;
}

bool pinned_blocks::overlaps(const chunk& memory) const noexcept {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& each) {
    const pool_pin& pin = each.second;
    return pin.address < memory.base + memory.bytes && memory.base < pin.address + pin.bytes;
  });
}

std::vector<pool_pin> pinned_blocks::list() const {
  std::vector<pool_pin> all;
  all.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) all.push_back(entry);
  return all;
}

void pinned_blocks::check(const paged_range* pages) const {
  if (pages == nullptr) return;
  for (const auto& [key, entry] : entries_) {
    if (!pages->is_pinned(entry.address, entry.bytes)) {
      throw std::logic_error("pinned_blocks I1: a pinned block lies over a slot that is not");
    }
  }
}

}  // namespace cenote::inline v1::pool
