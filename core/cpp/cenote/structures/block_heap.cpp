#include "cenote/structures/block_heap.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace cenote::inline v1 {
namespace {

/// A block of this size holds `bytes` at `alignment`, wherever it starts.
std::size_t bytes_to_look_for(std::size_t bytes, std::size_t alignment) {
  return bytes + (alignment > block_granularity ? alignment - block_granularity : 0);
}

std::byte* align_address_up(std::byte* address, std::size_t alignment) {
  return reinterpret_cast<std::byte*>(align_up(reinterpret_cast<std::uintptr_t>(address), alignment));
}

}  // namespace

block_heap::block_heap() : taken_(blocks_), retired_(create_owner()) {}

owner_index block_heap::create_owner() {
  const auto vacant = std::find(indexes_.begin(), indexes_.end(), nullptr);
  if (vacant != indexes_.end()) {
    *vacant = std::make_unique<free_index>();
    return static_cast<owner_index>(vacant - indexes_.begin());
  }
  if (indexes_.size() == most_owners) {
    throw std::length_error("a pool cannot know more than " + std::to_string(most_owners) + " streams and captures");
  }
  indexes_.push_back(std::make_unique<free_index>());
  return static_cast<owner_index>(indexes_.size() - 1);
}

void block_heap::destroy_owner(owner_index owner) noexcept { indexes_[owner].reset(); }

void block_heap::add_chunk(chunk memory, owner_index owner, stamp freed_at) {
  if (memory.bytes > max_block_bytes) throw std::length_error("a chunk of a pool cannot have 1 TiB or more");
  const auto above = chunks_.lower_bound(memory.base);
  const bool overlaps_above = above != chunks_.end() && above->first < memory.base + memory.bytes;
  const bool overlaps_below =
      above != chunks_.begin() && memory.base < std::prev(above)->first + std::prev(above)->second.bytes;
  if (overlaps_above || overlaps_below) throw std::logic_error("a chunk at this address is there already");
  blocks_.reserve(1);
  const auto place = chunks_.emplace_hint(above, memory.base, chunk_record{memory.bytes, no_block});
  block whole;
  whole.address = memory.base;
  whole.set_bytes(memory.bytes);
  whole.owner = owner;
  whole.freed_at = freed_at;
  place->second.first = blocks_.create(whole);
  chunk_bytes_ += memory.bytes;
  insert_merged(place->second.first);
}

block_index block_heap::find(owner_index owner, std::size_t bytes, std::size_t alignment,
                             bool is_thorough) const noexcept {
  const free_index& free = *indexes_[owner];
  const std::size_t wanted = bytes_to_look_for(bytes, alignment);
  return wanted <= free.free_bytes() ? free.find(blocks_, wanted, is_thorough) : no_block;
}

void* block_heap::take(block_index index, std::size_t bytes, std::size_t alignment, std::optional<owner_index> keeper,
                       std::size_t taker, std::uint8_t unasked) {
  std::byte* const start = align_address_up(blocks_[index].address, alignment);
  return blocks_[take_part(index, start, bytes, keeper, taker, unasked)].address;
}

block_index block_heap::take_part(block_index index, std::byte* start, std::size_t bytes,
                                  std::optional<owner_index> keeper, std::size_t taker, std::uint8_t unasked) {
  blocks_.reserve(2);
  taken_.reserve_one();  // nothing below throws
  indexes_[blocks_[index].owner]->remove(blocks_, index);
  index = cut_out(index, start, bytes, taker);
  block& taken = blocks_[index];
  taken.is_kept = keeper.has_value();
  taken.unasked = unasked;
  if (keeper) taken.owner = *keeper;
  taken_.insert(index);
  bytes_in_use_ += bytes;
  most_in_use_ = std::max(most_in_use_, bytes_in_use_);
  return index;
}

block_index block_heap::taken_at(const void* address) const noexcept {
  const block_index index = taken_.find(address);
  return index == no_block || blocks_[index].is_cached ? no_block : index;
}

void block_heap::give(block_index index, owner_index owner, stamp freed_at) noexcept {
  block& freed = blocks_[index];
  taken_.remove(index);
  bytes_in_use_ -= freed.bytes();
  if (!freed.is_kept) {
    freed.owner = owner;
  } else if (freed.owner != owner) {
    freed.owner = retired_of(static_cast<owner_index>(freed.owner));
  }
  freed.is_kept = false;
  freed.freed_at = freed_at;
  insert_merged(index);
}

void block_heap::retire_apart(owner_index keeper) {
  retired_apart_.reserve(retired_apart_.size() + 1);
  retired_apart_.emplace_back(keeper, create_owner());
}

owner_index block_heap::retired_of(owner_index keeper) const noexcept {
  const auto found = std::ranges::find(retired_apart_, keeper, &std::pair<owner_index, owner_index>::first);
  return found == retired_apart_.end() ? retired_ : found->second;
}

void block_heap::take_retired(owner_index keeper, stamp freed_at) {
  reown(retired_of(keeper), std::numeric_limits<stamp>::max(), keeper, freed_at);
}

void block_heap::let_go(owner_index keeper, owner_index to, stamp freed_at) {
  const owner_index retired = retired_of(keeper);
  reown(keeper, std::numeric_limits<stamp>::max(), to, freed_at);
  reown(retired, std::numeric_limits<stamp>::max(), to, freed_at);
  for (const auto& [base, record] : chunks_) {
    for (block_index i = record.first; i != no_block; i = blocks_[i].next) {
      if (!blocks_[i].is_free && blocks_[i].owner == keeper) blocks_[i].is_kept = false;
    }
  }
  destroy_owner(retired);
  std::erase_if(retired_apart_, [=](const auto& each) { return each.first == keeper; });
}

void block_heap::reown(owner_index from, stamp until, owner_index to, stamp freed_at) {
  std::vector<block_index> passing;
  indexes_[from]->for_each(blocks_, [&](block_index i) {
    if (blocks_[i].freed_at <= until) passing.push_back(i);
  });
  for (const block_index index : passing) pass(index, to, freed_at);
}

void block_heap::pass_part(block_index index, std::byte* start, std::size_t bytes, owner_index owner, stamp freed_at) {
  blocks_.reserve(2);  // nothing below throws
  indexes_[blocks_[index].owner]->remove(blocks_, index);
  index = cut_out(index, start, bytes, 0);
  blocks_[index].owner = owner;
  blocks_[index].freed_at = freed_at;
  insert_merged(index);
}

void block_heap::pass(block_index index, owner_index owner, stamp freed_at) noexcept {
  indexes_[blocks_[index].owner]->remove(blocks_, index);
  blocks_[index].owner = owner;
  blocks_[index].freed_at = freed_at;
  insert_merged(index);
}

/// Cuts a part out of a free block that is in no index; what is left on both sides goes back to its owner. The block
/// keeps its index for what is left below, or above where nothing is left below: the part has one of the taker's.
block_index block_heap::cut_out(block_index index, std::byte* start, std::size_t bytes, std::size_t taker) noexcept {
  if (start != blocks_[index].address) {
    const block_index upper = split(index, static_cast<std::size_t>(start - blocks_[index].address), taker);
    insert_free(index);
    index = upper;
    if (blocks_[index].bytes() != bytes) insert_free(split(index, bytes, taker));
  } else if (blocks_[index].bytes() != bytes) {
    const block_index lower = split_below(index, bytes, taker);
    insert_free(index);
    index = lower;
  }
  blocks_[index].is_free = false;
  return index;
}

std::vector<chunk> block_heap::remove_free_chunks(owner_index owner, const std::function<bool(const chunk&)>& wanted) {
  std::vector<chunk> whole;
  for (const auto& [base, record] : chunks_) {
    if (is_free_of(record.first, owner) && blocks_[record.first].bytes() == record.bytes) {
      whole.push_back({base, record.bytes});
    }
  }
  std::sort(whole.begin(), whole.end(),
            [](const chunk& a, const chunk& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : a.base < b.base; });
  std::erase_if(whole, [&](const chunk& c) { return !wanted(c); });
  for (const chunk& c : whole) {
    const auto place = chunks_.find(c.base);
    indexes_[owner]->remove(blocks_, place->second.first);
    blocks_.destroy(place->second.first);
    chunks_.erase(place);
    chunk_bytes_ -= c.bytes;
  }
  return whole;
}

void block_heap::for_each_block(const std::function<void(const block&)>& visit) const {
  for (const auto& [base, record] : chunks_) {
    for (block_index i = record.first; i != no_block; i = blocks_[i].next) visit(blocks_[i]);
  }
}

bool block_heap::is_free_of(block_index index, owner_index owner) const noexcept {
  return index != no_block && blocks_[index].is_free && blocks_[index].owner == owner;
}

/// Cuts a block that is in no index in two; returns the upper one, which starts `bytes` further on.
block_index block_heap::split(block_index index, std::size_t bytes, std::size_t taker) noexcept {
  block upper = blocks_[index];
  upper.address += bytes;
  upper.set_bytes(upper.bytes() - bytes);
  upper.prev = index;
  const block_index upper_index = blocks_.create(upper, taker);
  if (upper.next != no_block) blocks_[upper.next].prev = upper_index;
  blocks_[index].next = upper_index;
  blocks_[index].set_bytes(bytes);
  return upper_index;
}

/// The same, but returns the lower one, which has `bytes`.
block_index block_heap::split_below(block_index index, std::size_t bytes, std::size_t taker) noexcept {
  block lower = blocks_[index];
  lower.set_bytes(bytes);
  lower.next = index;
  const block_index lower_index = blocks_.create(lower, taker);
  if (lower.prev == no_block) {
    chunks_.find(lower.address)->second.first = lower_index;
  } else {
    blocks_[lower.prev].next = lower_index;
  }
  blocks_[index].prev = lower_index;
  blocks_[index].address += bytes;
  blocks_[index].set_bytes(blocks_[index].bytes() - bytes);
  return lower_index;
}

/// Joins a block with its upper neighbour, both in no index.
void block_heap::absorb_next(block_index index) noexcept {
  block& lower = blocks_[index];
  const block_index upper_index = lower.next;
  const block& upper = blocks_[upper_index];
  lower.granules += upper.granules;
  lower.freed_at = std::max(stamp{lower.freed_at}, stamp{upper.freed_at});
  lower.next = upper.next;
  if (lower.next != no_block) blocks_[lower.next].prev = index;
  blocks_.destroy(upper_index);
}

/// Puts a block that has no free neighbour of its owner into that owner's index.
void block_heap::insert_free(block_index index) noexcept {
  blocks_[index].is_free = true;
  indexes_[blocks_[index].owner]->insert(blocks_, index);
}

/// Puts a block into its owner's index, joined with the free neighbours of that owner.
void block_heap::insert_merged(block_index index) noexcept {
  free_index& free = *indexes_[blocks_[index].owner];
  if (const block_index next = blocks_[index].next; is_free_of(next, blocks_[index].owner)) {
    free.remove(blocks_, next);
    absorb_next(index);
  }
  if (const block_index prev = blocks_[index].prev; is_free_of(prev, blocks_[index].owner)) {
    free.remove(blocks_, prev);
    absorb_next(prev);
    index = prev;
  }
  insert_free(index);
}

void block_heap::check_chunk(std::byte* base, const chunk_record& record, std::size_t& in_use,
                             std::size_t& taken) const {
  std::byte* expected = base;
  block_index previous = no_block;
  for (block_index i = record.first; i != no_block; previous = i, i = blocks_[i].next) {
    const block& b = blocks_[i];
    if (b.address != expected || b.prev != previous || b.granules == 0) {
      throw std::logic_error("block_heap I1: a chunk's blocks do not tile it");
    }
    if (b.is_free && previous != no_block && is_free_of(previous, b.owner)) {
      throw std::logic_error("block_heap I2: two free neighbours have the same owner");
    }
    if (b.is_free == (taken_.find(b.address) == i)) {
      throw std::logic_error("block_heap I3: the directory and the blocks disagree");
    }
    if (!b.is_free) {
      in_use += b.bytes();
      ++taken;
    }
    expected += b.bytes();
  }
  if (expected != base + record.bytes) throw std::logic_error("block_heap I1: a chunk's blocks do not tile it");
}

void block_heap::check() const {
  taken_.check();
  std::size_t in_use = 0;
  std::size_t taken = 0;
  for (const auto& [base, record] : chunks_) check_chunk(base, record, in_use, taken);
  if (taken != taken_.size()) throw std::logic_error("block_heap I3: the directory and the blocks disagree");

  std::size_t free_total = 0;
  for (owner_index owner = 0; owner < indexes_.size(); ++owner) {
    if (!indexes_[owner]) continue;
    indexes_[owner]->check(blocks_);
    indexes_[owner]->for_each(blocks_, [&](block_index i) {
      if (blocks_[i].owner != owner) throw std::logic_error("block_heap I3: a block is in another owner's index");
    });
    free_total += indexes_[owner]->free_bytes();
  }
  if (in_use != bytes_in_use_ || bytes_in_use_ + free_total != chunk_bytes_) {
    throw std::logic_error("block_heap I4: bytes in use and free bytes do not add up");
  }
}

}  // namespace cenote::inline v1
