// The live blocks of one device, by address, and its statistics: what an allocation and a free change, under one lock.
//
// PyTorch frees by address alone, and asks by address what a block is.
//
// Invariants
//   I1  a block is in the table from before its address is handed out until its free begins
//   I2  each block in the table is counted as allocated and as active; one that was freed is counted as active until
//       remove_active() was called for it, if other streams were recorded
//
// Threads: all functions from any thread. A visitor runs under the lock, and allocates nothing on a device.
// Cost: one short lock a call, and a look-up. While the table grows for one insertion, all others wait.
#pragma once

#include <c10/util/flat_hash_map.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "device_counters.hpp"
#include "live_block.hpp"
#include "short_lock.hpp"

namespace cenote::torch {

class device_blocks {
 public:
  struct inserted_block {
    std::size_t allocated;  ///< bytes that are allocated with it
    bool is_nth_large;      ///< every sixteenth large block is
  };

  [[gnu::hot]] inserted_block insert(void* pointer, live_block&& block) {
    const std::lock_guard lock(lock_);
    const live_block& inserted = blocks_.insert_or_assign(pointer, std::move(block)).first->second;
    counters_.add(inserted);
    return {counters_.allocated_bytes(), inserted.is_large && ++large_blocks_ % 16 == 0};
  }

  struct taken_block {
    live_block block;
    std::size_t allocated;  ///< bytes that are allocated without it
  };

  /// Takes the block of that address out, if there is one.
  [[gnu::hot]] std::optional<taken_block> take(void* pointer) {
    const std::lock_guard lock(lock_);
    const auto found = blocks_.find(pointer);
    if (found == blocks_.end()) return std::nullopt;
    std::optional<taken_block> taken(taken_block{std::move(found->second), 0});
    blocks_.erase(found);
    counters_.remove_allocated(taken->block);
    if (taken->block.recorded.empty()) counters_.remove_active(taken->block);
    taken->allocated = counters_.allocated_bytes();
    return taken;
  }

  /// The streams that were recorded for a block which was taken have done their work.
  void remove_active(const live_block& block) {
    const std::lock_guard lock(lock_);
    counters_.remove_active(block);
  }

  /// Calls visit(block) under the lock; false where there is none.
  template <class Visitor>
  bool visit(const void* pointer, Visitor&& visitor) {
    const std::lock_guard lock(lock_);
    const auto found = blocks_.find(const_cast<void*>(pointer));
    if (found == blocks_.end()) return false;
    visitor(found->second);
    return true;
  }

  /// Copies all blocks, in no order.
  std::vector<std::pair<std::uintptr_t, live_block>> all() {
    std::vector<std::pair<std::uintptr_t, live_block>> found;
    const std::lock_guard lock(lock_);
    found.reserve(blocks_.size());
    for (const auto& [pointer, block] : blocks_) found.emplace_back(reinterpret_cast<std::uintptr_t>(pointer), block);
    return found;
  }

  /// Returns what `body` makes of the statistics, under the lock.
  template <class Body>
  auto with_counters(Body&& body) {
    const std::lock_guard lock(lock_);
    return body(counters_);
  }

  device_figures figures() {
    return with_counters([](const device_counters& counters) { return counters.figures(); });
  }

  std::size_t allocated_bytes() {
    return with_counters([](const device_counters& counters) { return counters.allocated_bytes(); });
  }

 private:
  short_lock lock_;  // guards all below
  device_counters counters_;
  std::uint32_t large_blocks_ = 0;
  ska::flat_hash_map<void*, live_block> blocks_;
};

}  // namespace cenote::torch
