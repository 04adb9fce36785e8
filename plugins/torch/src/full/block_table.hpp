// The live blocks of the full allocator, by address.
//
// PyTorch frees by address alone, and asks by address what a block is. The table lies in shards with a lock each, so
// that threads of different addresses do not meet.
//
// Invariants
//   I1  a block is in the table from before its address is handed out until its free begins
//
// Threads: all functions from any thread. A visitor runs under its shard's lock, and calls nothing that may allocate.
// Cost: one short lock and one look-up a call.
#pragma once

#include <c10/util/flat_hash_map.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "short_lock.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

class private_pool;

struct live_block {
  std::size_t bytes = 0;      ///< as it was taken: a multiple of 512
  std::size_t requested = 0;  ///< as the program asked
  void* stream = nullptr;
  private_pool* pool = nullptr;  ///< null: from the current resource of its device
  mempool_id pool_id = {0, 0};
  c10::DeviceIndex device = 0;
  bool is_large = false;
  bool outlives_its_stream = false;    ///< the stream is not PyTorch's, and may be destroyed before the block is freed
  bool is_pending = false;             ///< freed, and still used on a stream that was recorded
  std::vector<cudaStream_t> recorded;  ///< streams of PyTorch's own on which it is used, too
  context stack;
};

class block_table {
 public:
  void insert(void* pointer, live_block&& block) {
    shard& its = shard_of(pointer);
    const std::lock_guard lock(its.lock);
    its.blocks.insert_or_assign(pointer, std::move(block));
  }

  /// Moves the block into `taken`; false where there is none of that address.
  bool take(void* pointer, live_block& taken) {
    shard& its = shard_of(pointer);
    const std::lock_guard lock(its.lock);
    const auto found = its.blocks.find(pointer);
    if (found == its.blocks.end()) return false;
    taken = std::move(found->second);
    its.blocks.erase(found);
    return true;
  }

  /// Calls visit(block) under the lock; false where there is none.
  template <class Visitor>
  bool visit(const void* pointer, Visitor&& visitor) {
    shard& its = shard_of(pointer);
    const std::lock_guard lock(its.lock);
    const auto found = its.blocks.find(const_cast<void*>(pointer));
    if (found == its.blocks.end()) return false;
    visitor(found->second);
    return true;
  }

  /// Copies all blocks of a device, in no order.
  std::vector<std::pair<std::uintptr_t, live_block>> of_device(c10::DeviceIndex device) {
    std::vector<std::pair<std::uintptr_t, live_block>> found;
    for (shard& each : shards_) {
      const std::lock_guard lock(each.lock);
      for (const auto& [pointer, block] : each.blocks) {
        if (block.device == device) found.emplace_back(reinterpret_cast<std::uintptr_t>(pointer), block);
      }
    }
    return found;
  }

 private:
  struct alignas(64) shard {
    short_lock lock;  // guards `blocks`
    ska::flat_hash_map<void*, live_block> blocks;
  };

  /// By other bits of the hash than those by which a shard's own table finds the place: that one takes the uppermost.
  shard& shard_of(const void* pointer) {
    constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;
    return shards_[(reinterpret_cast<std::uintptr_t>(pointer) * golden_ratio >> 32) % shard_count];
  }

  static constexpr std::size_t shard_count = 64;
  std::array<shard, shard_count> shards_;
};

}  // namespace cenote::torch
