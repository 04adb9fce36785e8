#include "cenote/structures/front_cache.hpp"

#include <stdexcept>

namespace cenote {

bool front_cache::assign(std::uint64_t stream) noexcept {
  const std::lock_guard lock(lock_);
  if (bytes_ != 0) return false;
  stream_ = stream;
  return true;
}

void front_cache::clear(shelf& cleared, block_index& spilled) noexcept {
  while (cleared.top != no_block) {
    const block_index index = cleared.top;
    block& moved = blocks_[index];
    cleared.top = moved.free_next;
    moved.free_next = spilled;
    spilled = index;
  }
  bytes_ -= cleared.count * cleared.bytes;
  cleared.count = 0;
}

void front_cache::clear_all(block_index& spilled) noexcept {
  for (shelf& each : shelves_) clear(each, spilled);
}

block_index front_cache::drain() noexcept {
  const std::lock_guard lock(lock_);
  block_index spilled = no_block;
  if (bytes_ != 0) clear_all(spilled);
  return spilled;
}

std::size_t front_cache::bytes() const noexcept {
  const std::lock_guard lock(lock_);
  return bytes_;
}

std::size_t front_cache::blocks() const noexcept {
  const std::lock_guard lock(lock_);
  std::size_t count = 0;
  for (const shelf& each : shelves_) count += each.count;
  return count;
}

std::uint64_t front_cache::hits() const noexcept {
  const std::lock_guard lock(lock_);
  return hits_;
}

void front_cache::check() const {
  const std::lock_guard lock(lock_);
  std::size_t bytes = 0;
  for (const shelf& each : shelves_) {
    std::uint32_t count = 0;
    for (block_index i = each.top; i != no_block; i = blocks_[i].free_next, ++count) {
      const block& b = blocks_[i];
      if (!b.is_cached || b.is_free || b.is_kept || b.bytes != each.bytes || directory_.find(b.address) != i) {
        throw std::logic_error("front_cache I1: a shelf holds a block that does not belong there");
      }
      bytes += b.bytes;
    }
    if (count != each.count) throw std::logic_error("front_cache I1: a shelf's count is wrong");
  }
  if (bytes != bytes_) throw std::logic_error("front_cache I2: the sum of bytes is wrong");
}

}  // namespace cenote
