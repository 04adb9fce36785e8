// Which block starts at this address? For the chunks of a pool.
//
//     chunk    |  block 7  | block 3 |     (free)     |   block 9    |
//     starts     7  ·  ·  ·  3  ·  ·   ·  ·  ·  ·  ·    9  ·  ·  ·  ·      a number for each 256 bytes
//
// How it works: each chunk has a table with a place for each granule; a look-up finds the chunk (the last one asked
// for, or a binary search among the few there are) and reads one place. A table's pages are touched only where blocks
// start, so that it takes 4 bytes for each block of 256 bytes, and at most 1.6 % of the memory that it describes.
//
// Invariant
//   I1  chunks are sorted by address and do not overlap
//
// Threads: find() may run beside set() and clear(). add_chunk() and remove_chunk() need all others kept out.
// Cost: O(1) for set, clear and find within one chunk; O(log chunks) for another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cenote/structures/block.hpp"

namespace cenote {

struct chunk {
  std::byte* base;
  std::size_t bytes;
};

class block_directory {
 public:
  /// Remembers the chunk of the last look-up: whoever asks often has one of its own.
  struct hint {
    std::uintptr_t base = 0;
    std::size_t bytes = 0;
    std::uint32_t* starts = nullptr;
    std::uint64_t generation = 0;
  };

  /// Throws std::bad_alloc, and std::logic_error where there is a chunk already.
  void add_chunk(chunk memory);
  void remove_chunk(const std::byte* base) noexcept;

  /// `address` lies in a chunk, at a multiple of 256 bytes from its base.
  void set(const void* address, block_index block) noexcept;
  void clear(const void* address) noexcept;

  /// The block that starts at `address`, which may be any; no_block if none does.
  block_index find(const void* address) const noexcept;
  block_index find(const void* address, hint& last) const noexcept {
    const std::uintptr_t offset = reinterpret_cast<std::uintptr_t>(address) - last.base;
    if (offset >= last.bytes || last.generation != generation_) [[unlikely]]
      return find_afresh(address, last);
    return offset % block_granularity == 0 ? read(last.starts[offset / block_granularity]) : no_block;
  }

  /// How many blocks are entered.
  std::size_t size() const noexcept { return size_; }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  struct release {
    void operator()(std::uint32_t* table) const noexcept { std::free(table); }
  };
  struct entry {
    std::uintptr_t base;
    std::size_t bytes;
    std::unique_ptr<std::uint32_t[], release> starts;  // index + 1; 0 where no block starts
  };

  static block_index read(std::uint32_t& place) noexcept {
    return std::atomic_ref(place).load(std::memory_order_relaxed) - 1;  // 0 becomes no_block
  }
  static void write(std::uint32_t& place, block_index block) noexcept {
    std::atomic_ref(place).store(block + 1, std::memory_order_relaxed);
  }

  const entry* chunk_of(std::uintptr_t address) const noexcept;
  std::uint32_t* place_of(const void* address) const noexcept;
  block_index find_afresh(const void* address, hint& last) const noexcept;

  std::vector<entry> chunks_;
  std::uint64_t generation_ = 1;  // of hints: another one whenever a chunk has gone
  std::size_t size_ = 0;
};

}  // namespace cenote
