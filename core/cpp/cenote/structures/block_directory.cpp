#include "cenote/structures/block_directory.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace cenote {

void block_directory::add_chunk(chunk memory) {
  const auto base = reinterpret_cast<std::uintptr_t>(memory.base);
  const auto above = std::find_if(chunks_.begin(), chunks_.end(), [&](const entry& e) { return e.base > base; });
  const bool overlaps_below = above != chunks_.begin() && base < std::prev(above)->base + std::prev(above)->bytes;
  const bool overlaps_above = above != chunks_.end() && above->base < base + memory.bytes;
  if (overlaps_below || overlaps_above) throw std::logic_error("a chunk at this address is there already");

  // calloc has large tables from the system, which brings a page of zeros when it is first touched.
  const std::size_t granules = memory.bytes / block_granularity;
  auto* const table = static_cast<std::uint32_t*>(std::calloc(granules, sizeof(std::uint32_t)));
  if (table == nullptr) throw std::bad_alloc();
  chunks_.insert(above, {base, memory.bytes, std::unique_ptr<std::uint32_t[], release>(table)});
}

void block_directory::remove_chunk(const std::byte* base) noexcept {
  const entry* const found = chunk_of(reinterpret_cast<std::uintptr_t>(base));
  if (found == nullptr) return;
  chunks_.erase(chunks_.begin() + (found - chunks_.data()));
  ++generation_;
}

const block_directory::entry* block_directory::chunk_of(std::uintptr_t address) const noexcept {
  const auto above = std::upper_bound(chunks_.begin(), chunks_.end(), address,
                                      [](std::uintptr_t wanted, const entry& e) { return wanted < e.base; });
  if (above == chunks_.begin()) return nullptr;
  const entry& below = *std::prev(above);
  return address - below.base < below.bytes ? &below : nullptr;
}

std::uint32_t* block_directory::place_of(const void* address) const noexcept {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  const entry* const in = chunk_of(value);
  if (in == nullptr || (value - in->base) % block_granularity != 0) return nullptr;
  return &in->starts[(value - in->base) / block_granularity];
}

void block_directory::set(const void* address, block_index block) noexcept {
  write(*place_of(address), block);
  ++size_;
}

void block_directory::clear(const void* address) noexcept {
  write(*place_of(address), no_block);
  --size_;
}

block_index block_directory::find(const void* address) const noexcept {
  std::uint32_t* const place = place_of(address);
  return place == nullptr ? no_block : read(*place);
}

block_index block_directory::find_afresh(const void* address, hint& last) const noexcept {
  const entry* const in = chunk_of(reinterpret_cast<std::uintptr_t>(address));
  if (in == nullptr) return no_block;
  last = {in->base, in->bytes, in->starts.get(), generation_};
  return find(address);
}

void block_directory::check() const {
  for (std::size_t i = 1; i < chunks_.size(); ++i) {
    if (chunks_[i - 1].base + chunks_[i - 1].bytes > chunks_[i].base) {
      throw std::logic_error("block_directory I1: chunks are out of order");
    }
  }
}

}  // namespace cenote
