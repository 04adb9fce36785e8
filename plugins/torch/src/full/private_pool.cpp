#include "private_pool.hpp"

#include <stdexcept>
#include <string>

#include "sizes.hpp"

namespace cenote::torch {
namespace {

constexpr std::size_t small_segment = std::size_t{2} << 20;
constexpr std::size_t large_segment = std::size_t{20} << 20;
constexpr std::size_t smallest_of_own = std::size_t{10} << 20;  // from here on a segment is as large as the request

}  // namespace

void pool_totals::add(const pool_totals& other) {
  for (int kind : {0, 1}) {
    bytes[kind] += other.bytes[kind];
    live_bytes[kind] += other.live_bytes[kind];
    segments[kind] += other.segments[kind];
    split_blocks[kind] += other.split_blocks[kind];
    split_bytes[kind] += other.split_bytes[kind];
  }
}

void pool_totals::forget_segments() {
  pool_totals live;
  for (int kind : {0, 1}) live.live_bytes[kind] = live_bytes[kind];
  *this = live;
}

std::size_t private_pool::segment_bytes(std::size_t bytes) {
  if (bytes <= largest_small) return small_segment;
  if (bytes < smallest_of_own) return large_segment;
  return round_up(bytes, small_segment);
}

private_pool::free_key private_pool::key_of(block_place block) const {
  const pool_segment& segment = segments_.at(block->second.segment);
  return {segment.is_large, segment.stream, block->second.bytes, block->first};
}

bool private_pool::is_worth_cutting(bool is_large, std::size_t left) const {
  if (is_never_split_) return false;
  return is_large ? left > largest_small : left >= block_granularity;
}

char* private_pool::allocate_from_free(std::size_t bytes, std::size_t requested, void* stream) {
  const bool is_large = bytes > largest_small;
  const auto fitting = free_.lower_bound({is_large, stream, bytes, nullptr});
  if (fitting == free_.end() || std::get<0>(*fitting) != is_large || std::get<1>(*fitting) != stream) return nullptr;
  return make_live(blocks_.find(std::get<3>(*fitting)), bytes, requested);
}

void private_pool::add_segment(char* segment, std::size_t bytes, void* stream) {
  const std::size_t taken = segment_bytes(bytes);
  segments_[segment] = {taken, stream, bytes > largest_small, 0};
  const auto block = blocks_.insert_or_assign(segment, pool_block{taken, 0, false, segment}).first;
  free_.insert(key_of(block));
}

char* private_pool::allocate(std::size_t bytes, std::size_t requested, void* stream, const take_segment& take) {
  if (char* const found = allocate_from_free(bytes, requested, stream)) return found;
  char* const segment = take(segment_bytes(bytes));
  if (segment == nullptr) return nullptr;
  add_segment(segment, bytes, stream);
  return allocate_from_free(bytes, requested, stream);
}

void private_pool::cut_behind(block_place block, std::size_t bytes) {
  const std::size_t left = block->second.bytes - bytes;
  block->second.bytes = bytes;
  const auto rest = blocks_.emplace(block->first + bytes, pool_block{left, 0, false, block->second.segment}).first;
  free_.insert(key_of(rest));
}

char* private_pool::make_live(block_place block, std::size_t bytes, std::size_t requested) {
  pool_segment& segment = segments_.at(block->second.segment);
  free_.erase(key_of(block));
  if (is_worth_cutting(segment.is_large, block->second.bytes - bytes)) cut_behind(block, bytes);
  block->second.is_live = true;
  block->second.requested = requested;
  ++segment.live_blocks;
  ++live_blocks_;
  return block->first;
}

bool private_pool::take_at(char* address, std::size_t bytes, std::size_t requested) {
  auto block = blocks_.upper_bound(address);
  if (block == blocks_.begin()) return false;
  --block;
  const std::size_t before = static_cast<std::size_t>(address - block->first);
  if (block->second.is_live || before + bytes > block->second.bytes) return false;
  if (before != 0) {
    free_.erase(key_of(block));
    cut_behind(block, before);
    free_.insert(key_of(block));
    block = blocks_.find(address);
  }
  pool_segment& segment = segments_.at(block->second.segment);
  free_.erase(key_of(block));
  if (block->second.bytes > bytes) cut_behind(block, bytes);
  block->second.is_live = true;
  block->second.requested = requested;
  ++segment.live_blocks;
  ++live_blocks_;
  return true;
}

void private_pool::free(char* address) {
  auto block = blocks_.find(address);
  if (block == blocks_.end() || !block->second.is_live) throw std::logic_error("not a live block of this pool");
  pool_segment& segment = segments_.at(block->second.segment);
  block->second.is_live = false;
  block->second.requested = 0;
  --segment.live_blocks;
  --live_blocks_;
  if (const auto next = std::next(block);
      next != blocks_.end() && !next->second.is_live && next->second.segment == block->second.segment) {
    free_.erase(key_of(next));
    block->second.bytes += next->second.bytes;
    blocks_.erase(next);
  }
  if (block != blocks_.begin()) {
    const auto before = std::prev(block);
    if (!before->second.is_live && before->second.segment == block->second.segment) {
      free_.erase(key_of(before));
      before->second.bytes += block->second.bytes;
      blocks_.erase(block);
      block = before;
    }
  }
  free_.insert(key_of(block));
}

std::size_t private_pool::release_idle(const give_segment& give) {
  std::size_t bytes = 0;
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    if (segment->second.live_blocks != 0) {
      ++segment;
      continue;
    }
    const auto block = blocks_.find(segment->first);  // one free block, by I2
    free_.erase(key_of(block));
    blocks_.erase(block);
    bytes += segment->second.bytes;
    give(segment->first, segment->second);
    segment = segments_.erase(segment);
  }
  return bytes;
}

void private_pool::add_totals(pool_totals& totals) const {
  for (const auto& [address, segment] : segments_) {
    totals.bytes[segment.is_large] += segment.bytes;
    ++totals.segments[segment.is_large];
  }
  for (const auto& [address, block] : blocks_) {
    const pool_segment& segment = segments_.at(block.segment);
    if (block.is_live) {
      totals.live_bytes[segment.is_large] += block.bytes;
    } else if (block.bytes != segment.bytes) {
      ++totals.split_blocks[segment.is_large];
      totals.split_bytes[segment.is_large] += block.bytes;
    }
  }
}

void private_pool::check() const {
  const auto require = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(std::string("private_pool: ") + invariant + " does not hold");
  };
  std::size_t indexed = 0;
  std::size_t live = 0;
  for (const auto& [address, segment] : segments_) {
    std::size_t live_here = 0;
    bool was_free = false;
    char* end = address;
    for (auto block = blocks_.find(address); block != blocks_.end() && block->second.segment == address; ++block) {
      require(block->first == end, "I1");
      end += block->second.bytes;
      require(!was_free || block->second.is_live, "I2");
      was_free = !block->second.is_live;
      live_here += block->second.is_live ? 1 : 0;
      if (was_free) {
        require(free_.count({segment.is_large, segment.stream, block->second.bytes, block->first}) == 1, "I3");
        ++indexed;
      }
    }
    require(end == address + segment.bytes, "I1");
    require(live_here == segment.live_blocks, "I4");
    live += live_here;
  }
  require(indexed == free_.size(), "I3");
  require(live == live_blocks_, "I4");
}

}  // namespace cenote::torch
