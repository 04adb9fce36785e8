#include "cenote/structures/block.hpp"

#include <new>
#include <type_traits>

namespace cenote {

static_assert(std::is_trivially_copyable_v<block>, "a table of bytes holds blocks without a constructor call");

block_index block_table::create(const block& initial) noexcept {
  block_index index = vacant_;
  if (index != no_block) {
    vacant_ = at(index)->next;
    --vacant_count_;
  } else {
    index = static_cast<block_index>(used_++);
  }
  *at(index) = initial;
  return index;
}

void block_table::destroy(block_index index) noexcept {
  block& destroyed = *at(index);
  destroyed = {};
  destroyed.next = vacant_;
  vacant_ = index;
  ++vacant_count_;
}

void block_table::grow() {
  if (segments_used_ == segment_count) throw std::bad_alloc();
  const std::size_t blocks = std::size_t{1} << (first_segment_bits + segments_used_);
  segments_[segments_used_] = make_host_table<block>(blocks);
  ++segments_used_;
  capacity_ += blocks;
}

}  // namespace cenote
