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

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cenote/ground/bytes.hpp"

namespace cenote {

/// Every block starts and ends at a multiple of this.
constexpr std::size_t block_granularity = default_alignment;

using block_index = std::uint32_t;
constexpr block_index no_block = ~block_index{0};

using owner_index = std::uint32_t;
using stamp = std::uint64_t;

struct block {
  std::byte* address = nullptr;
  std::size_t bytes = 0;
  block_index prev = no_block;  // neighbour at the lower address, in the same chunk
  block_index next = no_block;
  block_index free_prev = no_block;  // neighbours in a bin of the free index; only while free
  block_index free_next = no_block;
  owner_index owner = 0;
  bool is_free = false;
  bool is_kept = false;  // taken by `owner`, which alone may ever have it again
  stamp freed_at = 0;
};

static_assert(sizeof(block) == 48, "block_heap.hpp names the bytes of a block");

/// Storage for blocks: an index stays valid while its block lives; freed places are used again.
class block_table {
 public:
  block_index create(const block& initial);
  void destroy(block_index index) noexcept;

  block& operator[](block_index index) noexcept { return blocks_[index]; }
  const block& operator[](block_index index) const noexcept { return blocks_[index]; }

  /// Room for `count` more blocks, so that the next `count` calls of create cannot throw.
  void reserve(std::size_t count);

 private:
  std::vector<block> blocks_;
  std::vector<block_index> vacant_;
};

}  // namespace cenote
