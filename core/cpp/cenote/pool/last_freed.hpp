// The large block that was freed last, set aside for the next request of its size.
//
//     free ─► set aside ─► the same stream asks for that size: no lock of the heap, no index
//                      └─► the heap is used for anything else: freed there first
//
// A front cache keeps small blocks. The heap, for the others, costs several times as much; but a stream mostly asks for
// a size that it has just freed.
//
// How it works
//   1. put() sets a block aside, if none is; take() gives it back for the same stream and size.
//   2. Whoever locks the heap collects the block first, and frees it. So no user of the heap sees a difference.
//   3. Only while the pool knows one stream, or its streams make no use of one another's marks, and is not paused:
//      else a free may need a mark at once.
//
// Threads: any; `lock_` guards the block. put() and take() are called within the gate of a front cache, collect() under
// the pool's lock. Cost: a spin lock each, and one read where there is nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>

#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/spin_lock.hpp"
#include "cenote/structures/block.hpp"

namespace cenote::inline v1::pool {

class last_freed {
 public:
  struct entry {
    stream_id stream;
    block_index index;
    std::size_t bytes;
  };

  bool is_allowed() const noexcept { return is_allowed_.load(std::memory_order_relaxed); }
  /// Where it is not allowed, put() and take() do nothing from then on.
  void allow(bool is_allowed) noexcept {
    if (is_allowed == this->is_allowed()) return;
    const std::lock_guard lock(lock_);
    is_allowed_.store(is_allowed, std::memory_order_relaxed);
  }

  /// False if there is one already, or none is allowed.
  bool put(const entry& freed) noexcept {
    if (!is_allowed() || is_full_.load(std::memory_order_relaxed)) return false;
    const std::lock_guard lock(lock_);
    if (!is_allowed() || is_full_.load(std::memory_order_relaxed)) return false;
    entry_ = freed;
    is_full_.store(true, std::memory_order_relaxed);
    return true;
  }

  block_index take(stream_id stream, std::size_t bytes) noexcept {
    if (!is_full_.load(std::memory_order_relaxed)) return no_block;
    const std::lock_guard lock(lock_);
    const bool has_one = is_allowed() && is_full_.load(std::memory_order_relaxed);
    if (!has_one || entry_.stream != stream || entry_.bytes != bytes) return no_block;
    is_full_.store(false, std::memory_order_relaxed);
    hits_.store(hits() + 1, std::memory_order_relaxed);
    return entry_.index;
  }

  /// How often take() had the block.
  std::uint64_t hits() const noexcept { return hits_.load(std::memory_order_relaxed); }

  std::optional<entry> collect() noexcept {
    if (!is_full_.load(std::memory_order_relaxed)) return std::nullopt;
    const std::lock_guard lock(lock_);
    if (!is_full_.load(std::memory_order_relaxed)) return std::nullopt;
    is_full_.store(false, std::memory_order_relaxed);
    return entry_;
  }

 private:
  std::atomic<bool> is_allowed_{false};
  std::atomic<bool> is_full_{false};
  std::atomic<std::uint64_t> hits_{0};
  spin_lock lock_;
  entry entry_{};
};

}  // namespace cenote::inline v1::pool
