#include "cenote/structures/page_map.hpp"

#include <algorithm>
#include <stdexcept>

namespace cenote::inline v1 {

std::vector<page> page_map::all() const {
  std::vector<page> pages;
  for (std::size_t slot = 0; slot < codes_.size();) {
    const page found = page_at(base_ + slot * slot_bytes);
    if (found.bytes != 0) pages.push_back(found);
    slot += std::max(found.bytes / slot_bytes, std::size_t{1});
  }
  return pages;
}

std::size_t page_map::largest_page_at(const std::byte* address, const std::byte* end) const noexcept {
  const auto offset = static_cast<std::size_t>(address - base_);
  const auto room = static_cast<std::size_t>(end - address);
  const std::size_t by_place = offset == 0 ? max_page_bytes : offset & (~offset + 1);
  const std::size_t by_room = room < slot_bytes ? 0 : std::bit_floor(room);
  return std::min({by_place, by_room, max_page_bytes});
}

void page_map::reserve_until(const std::byte* end) {
  const std::size_t slots = slot_of(end);
  if (slots <= codes_.size()) return;
  pins_.resize(std::max(slots, codes_.size() * 2));
  codes_.resize(pins_.size());
}

void page_map::insert(page mapped) noexcept {
  fill(mapped, static_cast<std::uint8_t>(1 + std::countr_zero(mapped.bytes / slot_bytes)));
  mapped_bytes_ += mapped.bytes;
}

void page_map::remove(page unmapped) noexcept {
  fill(unmapped, 0);
  mapped_bytes_ -= unmapped.bytes;
}

void page_map::fill(page part, std::uint8_t code) noexcept {
  const auto first = codes_.begin() + static_cast<std::ptrdiff_t>(slot_of(part.address));
  std::fill_n(first, part.bytes / slot_bytes, code);
}

void page_map::pin(const std::byte* address, std::size_t bytes) noexcept {
  for (std::size_t slot = slot_of(address); base_ + slot * slot_bytes < address + bytes; ++slot) ++pins_[slot];
}

void page_map::unpin(const std::byte* address, std::size_t bytes) noexcept {
  for (std::size_t slot = slot_of(address); base_ + slot * slot_bytes < address + bytes; ++slot) --pins_[slot];
}

bool page_map::is_pinned(const page& whole) const noexcept {
  const auto first = pins_.begin() + static_cast<std::ptrdiff_t>(slot_of(whole.address));
  return std::any_of(first, first + static_cast<std::ptrdiff_t>(whole.bytes / slot_bytes),
                     [](std::uint32_t count) { return count != 0; });
}

void page_map::check() const {
  std::size_t bytes = 0;
  for (std::size_t slot = 0; slot < codes_.size();) {
    const std::size_t slots = codes_[slot] == 0 ? 1 : std::size_t{1} << (codes_[slot] - 1);
    const bool is_whole = slot % slots == 0 && slot + slots <= codes_.size() &&
                          std::all_of(codes_.begin() + static_cast<std::ptrdiff_t>(slot),
                                      codes_.begin() + static_cast<std::ptrdiff_t>(slot + slots),
                                      [code = codes_[slot]](std::uint8_t each) { return each == code; });
    if (!is_whole) throw std::logic_error("page_map: a page does not lie at a multiple of its size");
    if (codes_[slot] != 0) bytes += slots * slot_bytes;
    slot += slots;
  }
  for (std::size_t slot = 0; slot < codes_.size(); ++slot) {
    if (pins_[slot] != 0 && codes_[slot] == 0) throw std::logic_error("page_map I2: a pinned slot has no page");
  }
  if (bytes != mapped_bytes_) throw std::logic_error("page_map I1: the sizes of the pages do not add up");
}

}  // namespace cenote::inline v1
