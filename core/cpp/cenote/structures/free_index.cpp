#include "cenote/structures/free_index.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace cenote::inline v1 {

free_index::free_index() {
  for (auto& level : heads_) level.fill(no_block);
}

// Level 0 holds exact sizes of 0 … 15 granules; level n > 0 holds [16 · 2^(n-1), 16 · 2^n) granules in 16 equal bins.
free_index::place free_index::place_of(std::size_t bytes) noexcept {
  const std::size_t granules = bytes / block_granularity;
  if (granules < bins_per_level) return {0, static_cast<unsigned>(granules)};
  const unsigned top_bit = static_cast<unsigned>(std::bit_width(granules)) - 1;
  const unsigned shift = top_bit - bin_bits;
  return {shift + 1, static_cast<unsigned>(granules >> shift) - bins_per_level};
}

void free_index::insert(block_table& blocks, block_index index) noexcept {
  block& b = blocks[index];
  const auto [level, bin] = place_of(b.bytes());
  block_index& head = heads_[level][bin];
  b.free_prev = no_block;
  b.free_next = head;
  if (head != no_block) blocks[head].free_prev = index;
  head = index;
  levels_ |= std::uint64_t{1} << level;
  bins_[level] = static_cast<std::uint16_t>(bins_[level] | 1u << bin);
  free_bytes_ += b.bytes();
}

void free_index::remove(block_table& blocks, block_index index) noexcept {
  block& b = blocks[index];
  const auto [level, bin] = place_of(b.bytes());
  if (b.free_next != no_block) blocks[b.free_next].free_prev = b.free_prev;
  if (b.free_prev != no_block) {
    blocks[b.free_prev].free_next = b.free_next;
  } else {
    heads_[level][bin] = b.free_next;
    if (b.free_next == no_block) bins_[level] = static_cast<std::uint16_t>(bins_[level] & ~(1u << bin));
    if (bins_[level] == 0) levels_ &= ~(std::uint64_t{1} << level);
  }
  b.free_prev = b.free_next = no_block;
  free_bytes_ -= b.bytes();
}

block_index free_index::first_at_or_above(place from) const noexcept {
  if (from.level >= level_count) return no_block;
  const unsigned in_level = bins_[from.level] & (~0u << from.bin);
  if (in_level != 0) return heads_[from.level][static_cast<unsigned>(std::countr_zero(in_level))];
  const std::uint64_t above = levels_ & (~std::uint64_t{1} << from.level);
  if (above == 0) return no_block;
  const auto level = static_cast<unsigned>(std::countr_zero(above));
  return heads_[level][static_cast<unsigned>(std::countr_zero(bins_[level]))];
}

block_index free_index::find(const block_table& blocks, std::size_t bytes, bool is_thorough) const noexcept {
  const auto [level, bin] = place_of(bytes);
  if (level >= level_count) return no_block;
  const unsigned tries = is_thorough ? ~0u : most_tries;
  const block_index near = smallest_of(blocks, heads_[level][bin], bytes, tries);
  if (near != no_block) return near;
  return smallest_of(blocks, first_at_or_above(above({level, bin})), bytes, tries);
}

/// Returns the smallest block that fits, of the first few of a bin.
block_index free_index::smallest_of(const block_table& blocks, block_index head, std::size_t bytes,
                                    unsigned tries) const noexcept {
  block_index smallest = no_block;
  for (block_index i = head; i != no_block && tries != 0; i = blocks[i].free_next, --tries) {
    const bool is_smaller = smallest == no_block || blocks[i].granules < blocks[smallest].granules;
    if (is_smaller && blocks[i].bytes() >= bytes) smallest = i;
    if (smallest == i && blocks[i].bytes() == bytes) break;
  }
  return smallest;
}

std::size_t free_index::largest_bytes(const block_table& blocks) const noexcept {
  if (levels_ == 0) return 0;
  const auto level = static_cast<unsigned>(std::bit_width(levels_)) - 1;
  const auto bin = static_cast<unsigned>(std::bit_width(bins_[level])) - 1;
  std::size_t largest = 0;
  for (block_index i = heads_[level][bin]; i != no_block; i = blocks[i].free_next) {
    largest = std::max(largest, blocks[i].bytes());
  }
  return largest;
}

void free_index::check(const block_table& blocks) const {
  std::size_t bytes = 0;
  for (unsigned level = 0; level < level_count; ++level) {
    if (((levels_ >> level) & 1) != (bins_[level] != 0))
      throw std::logic_error("free_index I1: a level's bit is wrong");
    for (unsigned bin = 0; bin < bins_per_level; ++bin) {
      const block_index head = heads_[level][bin];
      if (((bins_[level] >> bin) & 1u) != (head != no_block))
        throw std::logic_error("free_index I1: a bin's bit is wrong");
      block_index previous = no_block;
      for (block_index i = head; i != no_block; previous = i, i = blocks[i].free_next) {
        const block& b = blocks[i];
        const auto [its_level, its_bin] = place_of(b.bytes());
        if (!b.is_free || its_level != level || its_bin != bin || b.free_prev != previous) {
          throw std::logic_error("free_index I2: a bin holds a block that does not belong there");
        }
        bytes += b.bytes();
      }
    }
  }
  if (bytes != free_bytes_) throw std::logic_error("free_index I3: the sum of free bytes is wrong");
}

}  // namespace cenote::inline v1
