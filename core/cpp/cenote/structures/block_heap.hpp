// The blocks of a pool: chunks of memory cut into blocks, handed out, taken back and merged. Bookkeeping only.
//
// How it works
//   1. add_chunk() brings memory in, as one free block of an owner.
//   2. find() asks one owner's free index for a block that fits; take() cuts the wanted bytes off its lower end, so
//      that the rest lies beside what is free, or has no pages yet, above it. The rest keeps the block's index, and
//      what is taken has one of the taker's (block_table):
//
//          |        free block, owner S        |
//          | gap |  taken  |       rest        |      gap: only where the alignment is above 256
//          free S              free S
//
//   3. give() frees a block to an owner and merges it with the free neighbours that have the same owner. Neighbours of
//      other owners stay apart: who takes them must wait for other work.
//   4. reown() passes blocks from one owner to another, merging as give() does.
//   5. A chunk that is one free block may be removed again, and goes back to where it came from.
//
// Invariants
//   I1  the blocks of a chunk tile it: they are linked in address order without gap or overlap
//   I2  no two neighbours are free with the same owner
//   I3  exactly the free blocks are in their owner's index; exactly the taken ones in the directory
//   I4  bytes_in_use() + the free bytes of all owners = chunk_bytes()
//
// A stamp travels with a free block; merging keeps the later one.
//
// Threads: none of its own; the pool locks.
// A block that lies in a front cache is a taken one to the heap.
//
// Cost: O(1) for find, take and give; O(blocks of the owner) for reown; 40 bytes of host memory a block, and those of
// the directory for a taken one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/structures/block.hpp"
#include "cenote/structures/block_directory.hpp"
#include "cenote/structures/free_index.hpp"

namespace cenote::inline v1 {

class block_heap {
 public:
  block_heap();

  owner_index create_owner();
  /// From now on a block that `keeper` keeps, and another frees, is retired to an owner of its own, and not to the one
  /// that all share: let_go() finds it there.
  void retire_apart(owner_index keeper);

  /// Gives the keeper what it kept and others have freed, as if it had been freed there at `freed_at`. After
  /// retire_apart().
  void take_retired(owner_index keeper, stamp freed_at);

  /// The keeper keeps nothing any more: what it has free, and what was retired, goes to `to`, as if freed there at
  /// `freed_at`. After retire_apart().
  void let_go(owner_index keeper, owner_index to, stamp freed_at);

  /// The owner must have no free block and keep none.
  void destroy_owner(owner_index owner) noexcept;

  /// `base` aligned to 256, `bytes` a multiple of 256 and not 0, at most max_block_bytes (else std::length_error).
  /// std::logic_error where there is a chunk already. Nothing has changed if it throws.
  void add_chunk(chunk memory, owner_index owner, stamp freed_at);

  /// A free block of `owner` from which `bytes` (a multiple of 256) can be taken at `alignment`, or no_block.
  /// A thorough search finds one if there is any; else one that is in the way of nothing may be missed (free_index).
  block_index find(owner_index owner, std::size_t bytes, std::size_t alignment,
                   bool is_thorough = false) const noexcept;

  /// Takes `bytes` out of a block that find() returned for the same arguments. With a `keeper`, no other
  /// owner will ever get the block (see give). `taker` is as in block_table; so many bytes were not asked for. Nothing
  /// has changed if it throws std::bad_alloc.
  void* take(block_index index, std::size_t bytes, std::size_t alignment, std::optional<owner_index> keeper = {},
             std::size_t taker = 0, std::uint8_t unasked = 0);

  /// The block that is in use at `address`; no_block if none is.
  block_index taken_at(const void* address) const noexcept;

  /// Frees a taken block to `owner`; one that has a keeper is retired if it is another that frees it: nobody ever gets
  /// it again.
  void give(block_index index, owner_index owner, stamp freed_at) noexcept;

  /// Passes the blocks of `from` that were freed at `until` or before to `to`, as if freed there at `freed_at`.
  void reown(owner_index from, stamp until, owner_index to, stamp freed_at);

  // For memory of which a part has no pages (paged_range.hpp).

  /// Host memory for `count` more blocks, and for one more that is taken. Throws std::bad_alloc.
  void reserve(std::size_t count) {
    blocks_.reserve(count);
    taken_.reserve_one();
  }

  /// Calls `visit(block_index)` for free blocks of `owner`, from about `bytes` on, small ones first, until it returns
  /// false. `visit` must not change the heap.
  template <class Visit>
  void for_each_free(owner_index owner, std::size_t bytes, Visit&& visit) const {
    indexes_[owner]->for_each_from(blocks_, bytes, visit);
  }

  /// Passes a part of a free block to `owner`, as if freed there at `freed_at`. Nothing has changed if it throws
  /// std::bad_alloc.
  void pass_part(block_index index, std::byte* start, std::size_t bytes, owner_index owner, stamp freed_at);

  /// Passes a whole free block to `owner`.
  void pass(block_index index, owner_index owner, stamp freed_at) noexcept;

  /// Takes `bytes` from `start` on out of a free block; the rest as in take().
  block_index take_part(block_index index, std::byte* start, std::size_t bytes, std::optional<owner_index> keeper = {},
                        std::size_t taker = 0, std::uint8_t unasked = 0);

  /// Removes chunks that are one free block of `owner`, largest first, while `wanted(chunk)` says so.
  std::vector<chunk> remove_free_chunks(owner_index owner, const std::function<bool(const chunk&)>& wanted);

  const block& operator[](block_index index) const noexcept { return blocks_[index]; }

  std::byte* end_of(block_index index) const noexcept { return blocks_[index].address + blocks_[index].bytes(); }

  /// For a front cache, which marks taken blocks as cached and links them.
  block_table& blocks() noexcept { return blocks_; }
  const block_directory& directory() const noexcept { return taken_; }

  /// The directory's old tables, which may be released while no front cache looks into them.
  bool has_outgrown_tables() const noexcept { return taken_.has_outgrown(); }
  void release_outgrown_tables() noexcept { taken_.release_outgrown(); }

  std::size_t free_bytes(owner_index owner) const noexcept { return indexes_[owner]->free_bytes(); }
  std::size_t largest_free(owner_index owner) const noexcept { return indexes_[owner]->largest_bytes(blocks_); }

  /// The most bytes side by side that would be one block if `may_be_had(block)` were all of one owner. O(blocks).
  template <class Having>
  std::size_t largest_run(Having&& may_be_had) const {
    std::size_t largest = 0;
    std::size_t run = 0;
    for (const auto& [base, record] : chunks_) {
      run = 0;
      for (block_index i = record.first; i != no_block; i = blocks_[i].next) {
        run = may_be_had(blocks_[i]) ? run + blocks_[i].bytes() : 0;
        largest = std::max(largest, run);
      }
    }
    return largest;
  }
  std::size_t bytes_in_use() const noexcept { return bytes_in_use_; }
  std::size_t blocks_in_use() const noexcept { return taken_.size(); }
  std::size_t chunk_bytes() const noexcept { return chunk_bytes_; }

  /// The most bytes that were in use since this was last called.
  std::size_t most_in_use_since() noexcept { return std::exchange(most_in_use_, bytes_in_use_); }
  std::size_t chunk_count() const noexcept { return chunks_.size(); }

  bool has_chunk(const chunk& memory) const { return chunks_.contains(memory.base); }

  /// Every block of every chunk, in order of address.
  void for_each_block(const std::function<void(const block&)>& visit) const;

  /// Calls `visit(chunk)` for each chunk, for a pool that is being destroyed.
  template <class Visit>
  void for_each_chunk(Visit&& visit) const {
    for (const auto& [base, record] : chunks_) visit(chunk{base, record.bytes});
  }

  /// Throws std::logic_error naming the invariant that does not hold. O(blocks).
  void check() const;

 private:
  struct chunk_record {
    std::size_t bytes;
    block_index first;
  };

  bool is_free_of(block_index index, owner_index owner) const noexcept;
  owner_index retired_of(owner_index keeper) const noexcept;
  block_index split(block_index index, std::size_t bytes, std::size_t taker) noexcept;
  block_index split_below(block_index index, std::size_t bytes, std::size_t taker) noexcept;
  void absorb_next(block_index index) noexcept;
  block_index cut_out(block_index index, std::byte* start, std::size_t bytes, std::size_t taker) noexcept;
  void insert_free(block_index index) noexcept;
  void insert_merged(block_index index) noexcept;
  void check_chunk(std::byte* base, const chunk_record& record, std::size_t& in_use, std::size_t& taken) const;

  block_table blocks_;
  block_directory taken_;
  std::vector<std::unique_ptr<free_index>> indexes_;                // by owner; null: that number is vacant
  owner_index retired_;                                             // the owner that nobody is
  std::vector<std::pair<owner_index, owner_index>> retired_apart_;  // keepers, each with where its blocks retire
  std::map<std::byte*, chunk_record> chunks_;
  std::size_t bytes_in_use_ = 0;
  std::size_t most_in_use_ = 0;  // since it was last asked
  std::size_t chunk_bytes_ = 0;
};

}  // namespace cenote::inline v1
