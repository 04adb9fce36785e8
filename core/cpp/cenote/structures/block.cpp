#include "cenote/structures/block.hpp"

#include <algorithm>

namespace cenote {

block_index block_table::create(const block& initial) {
  if (!vacant_.empty()) {
    const block_index index = vacant_.back();
    vacant_.pop_back();
    blocks_[index] = initial;
    return index;
  }
  blocks_.push_back(initial);
  return static_cast<block_index>(blocks_.size() - 1);
}

void block_table::destroy(block_index index) noexcept {
  blocks_[index] = {};
  vacant_.push_back(index);  // reserve() made room for every block that exists
}

void block_table::reserve(std::size_t count) {
  const std::size_t needed = blocks_.size() + count;
  if (blocks_.capacity() < needed) blocks_.reserve(std::max(needed, 2 * blocks_.capacity()));
  if (vacant_.capacity() < blocks_.capacity()) vacant_.reserve(blocks_.capacity());
}

}  // namespace cenote
