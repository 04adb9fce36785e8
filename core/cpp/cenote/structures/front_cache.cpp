#include "cenote/structures/front_cache.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cenote::inline v1 {

bool front_cache::assign(std::uint64_t stream) noexcept {
  if (bytes() != 0) return false;
  stream_ = stream;
  return true;
}

/// Spills all but the newest `count` blocks of a shelf.
void front_cache::keep_newest(shelf& of, std::uint16_t count, block_index& spilled) noexcept {
  of.restock = std::max<std::uint16_t>(of.restock / 2, 1);
  if (of.count <= count) return;
  block_index* link = &of.top;
  for (std::uint16_t kept = 0; kept < count; ++kept) link = &blocks_[*link].free_next;
  block_index index = std::exchange(*link, no_block);
  while (index != no_block) {
    block& moved = blocks_[index];
    const block_index below = std::exchange(moved.free_next, spilled);
    spilled = std::exchange(index, below);
  }
  add(bytes_, std::size_t{0} - (of.count - count) * of.bytes);
  of.count = count;
}

void front_cache::clear_all(block_index& spilled) noexcept {
  for (shelf& each : shelves_) keep_newest(each, 0, spilled);
}

std::uint32_t front_cache::restock(std::uint64_t stream, std::size_t bytes, std::size_t budget) noexcept {
  const std::unique_lock lock(lock_, std::try_to_lock);
  if (!lock) return 1;
  shelf& empty = shelf_for(bytes);
  if (stream_ != stream || empty.count != 0) return 1;
  if (empty.bytes != bytes) {
    empty.bytes = bytes;
    empty.restock = 1;
    return 1;
  }
  empty.restock = std::min<std::uint16_t>(2 * empty.restock, most_restocked);
  // What nobody has asked for yet takes no more than a share of the budget.
  const std::size_t room = std::min(largest(budget), budget - std::min(budget, this->bytes())) / bytes;
  return static_cast<std::uint32_t>(std::clamp<std::size_t>(room, 1, empty.restock));
}

bool front_cache::stock(std::uint64_t stream, block_index index) noexcept {
  const std::unique_lock lock(lock_, std::try_to_lock);
  if (!lock) return false;
  const std::size_t bytes = blocks_[index].bytes();
  shelf& onto = shelf_for(bytes);
  if (stream_ != stream || onto.bytes != bytes || onto.count == depth) return false;
  push(onto, index, blocks_[index]);
  return true;
}

block_index front_cache::drain() noexcept {
  block_index spilled = no_block;
  if (bytes() != 0) clear_all(spilled);
  return spilled;
}

std::size_t front_cache::blocks() const noexcept {
  std::size_t count = 0;
  for (const shelf& each : shelves_) count += each.count;
  return count;
}

void front_cache::check() const {
  std::size_t bytes = 0;
  for (const shelf& each : shelves_) {
    std::uint16_t count = 0;
    for (block_index i = each.top; i != no_block; i = blocks_[i].free_next, ++count) {
      const block& b = blocks_[i];
      if (!b.is_cached || b.is_free || b.is_kept || b.bytes() != each.bytes || directory_.find(b.address) != i) {
        throw std::logic_error("front_cache I1: a shelf holds a block that does not belong there");
      }
      bytes += b.bytes();
    }
    if (count != each.count) throw std::logic_error("front_cache I1: a shelf's count is wrong");
  }
  if (bytes != this->bytes()) throw std::logic_error("front_cache I2: the sum of bytes is wrong");
}

}  // namespace cenote::inline v1
