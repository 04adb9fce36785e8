// A block: a run of addresses that is either in use or free, described on the host.
//
// The memory itself is the device's and is never read or written. Blocks of one chunk (one allocation of the upstream)
// tile it in address order:
//
//     chunk  |  in use  |   free   | in use |      free      |
//            ^ first     prev ← block → next                  no block is shared by two chunks
//
// A free block has an owner: the stream on which it may be used again without waiting, and a stamp: the moment in that
// stream's life from which this is so. The structures only carry both; what they mean is the pool's affair.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/host_table.hpp"

namespace cenote::inline v1 {

/// Every block starts and ends at a multiple of this.
constexpr std::size_t block_granularity = default_alignment;

using block_index = std::uint32_t;
constexpr block_index no_block = ~block_index{0};

using owner_index = std::uint32_t;
using stamp = std::uint64_t;

// An owner and a stamp share a word: a pool knows at most a million streams and captures at a time, and closes an epoch
// at most ten million times a second for twenty days.
constexpr unsigned owner_bits = 20;
constexpr std::size_t most_owners = std::size_t{1} << owner_bits;

struct block {
  std::byte* address = nullptr;
  std::uint32_t granules = 0;  // its size
  bool is_free : 1 = false;
  bool is_kept : 1 = false;          // taken by `owner`, which alone may ever have it again
  bool is_cached = false;            // taken, and in a front cache or set aside: nobody's now
  std::uint8_t unasked = 0;          // while in use: bytes at its end that were not asked for
  block_index free_next = no_block;  // neighbours in a bin of the free index, while free;
  block_index free_prev = no_block;  // `free_next` also: the block below in a front cache, while cached
  block_index prev = no_block;       // neighbour at the lower address, in the same chunk
  block_index next = no_block;
  std::uint64_t owner : owner_bits = 0;
  std::uint64_t freed_at : 64 - owner_bits = 0;

  std::size_t bytes() const noexcept { return std::size_t{granules} * block_granularity; }
  std::size_t asked_bytes() const noexcept { return bytes() - unasked; }
  void set_bytes(std::size_t bytes) noexcept { granules = static_cast<std::uint32_t>(bytes / block_granularity); }
};

/// The largest block, and so the largest chunk: 1 TiB, less 256 bytes.
constexpr std::size_t max_block_bytes = std::size_t{~std::uint32_t{0}} * block_granularity;

static_assert(sizeof(block) == 40, "block_heap.hpp names the bytes of a block");

/// Memory that a pool cuts blocks from: one allocation of its upstream.
struct chunk {
  std::byte* base;
  std::size_t bytes;
};

/// Storage for blocks: an index stays valid and its block where it is while the block lives; freed places are used
/// again. Segments double in size, and a page of them is touched only once it is needed.
///
/// A thread that takes and frees the same blocks again and again writes to their places each time. So places are given
/// out in runs that share no cache line, a run to one taker: threads that keep to their blocks keep to their lines.
class block_table {
 public:
  /// `taker` is a small number of who will use the block, such as a thread's slot.
  block_index create(const block& initial, std::size_t taker = 0) noexcept;
  void destroy(block_index index) noexcept;

  block& operator[](block_index index) noexcept { return *at(index); }
  const block& operator[](block_index index) const noexcept { return *at(index); }

  /// Room for `count` more blocks, so that the next `count` calls of create cannot fail. Throws std::bad_alloc.
  void reserve(std::size_t count) {
    while (vacant_ + (capacity_ - used_) < count) grow();
  }

 private:
  // Segment s holds the 1024 · 2^s blocks from index 1024 · (2^s - 1) on.
  static constexpr unsigned first_segment_bits = 10;
  static constexpr unsigned segment_count = 32 - first_segment_bits;

  static constexpr std::size_t run = 8;  // places: five cache lines
  static_assert(run * sizeof(block) % 64 == 0);

  static constexpr std::size_t stock_count = 16;
  struct stock {
    block_index first = no_block;  // of the vacant places of some takers, linked by `next`
  };

  block* at(block_index index) const noexcept {
    const std::uint64_t shifted = std::uint64_t{index} + (1u << first_segment_bits);
    const auto top_bit = static_cast<unsigned>(std::bit_width(shifted)) - 1;
    return &segments_[top_bit - first_segment_bits][shifted ^ (std::uint64_t{1} << top_bit)];
  }
  void put(std::size_t stock, block_index vacant) noexcept;
  std::size_t stock_for(std::size_t taker) noexcept;
  void grow();

  std::array<host_table<block>, segment_count> segments_;
  unsigned segments_used_ = 0;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;    // places that were ever given to a stock
  std::size_t vacant_ = 0;  // places in all stocks
  std::array<stock, stock_count> stocks_;
  std::vector<std::uint8_t> stock_of_run_;
};

}  // namespace cenote::inline v1
