// The statistics of one device, by PyTorch's definitions (c10::CachingDeviceAllocator::DeviceStats).
//
//   1. Each allocation and free counts blocks and bytes: all of them, and those of its kind, small (up to 1 MiB) or
//      large.
//   2. What is reserved is the core's figure. It is set from outside, as are the figures of private pools, whenever
//      somebody asks and whenever they are known to have grown.
//
// Threads: any; `lock_` guards the figures.
// Cost: one short lock a call.
#pragma once

#include <cstdint>
#include <mutex>

#include "block_table.hpp"
#include "short_lock.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

/// The figures that are not counted here.
struct reserved_figures {
  std::size_t small = 0;
  std::size_t large = 0;
  std::size_t segments_small = 0;
  std::size_t segments_large = 0;
  std::size_t split_blocks_small = 0;
  std::size_t split_blocks_large = 0;
  std::size_t split_bytes_small = 0;
  std::size_t split_bytes_large = 0;
};

class device_counters {
 public:
  /// Returns the bytes that are allocated now.
  std::size_t add(const live_block& block);
  std::size_t remove(const live_block& block);

  /// remove() in two steps: the program lets go, and the memory may be used again.
  std::size_t remove_allocated(const live_block& block);
  void remove_active(const live_block& block);

  void set_reserved(const reserved_figures& now);
  void add_retry();
  void add_out_of_memory();
  void reset_accumulated();
  void reset_peak();

  device_figures read() const;
  std::size_t allocated_bytes() const;

 private:
  std::size_t remove_allocated_locked(const live_block& block);
  void remove_active_locked(const live_block& block);

  mutable short_lock lock_;
  device_figures figures_;
};

/// Adds the figures of another allocator of the same device. A peak is at most the sum of both peaks; what is given is
/// the larger of the other's and ours beside what the other has now.
void add_figures(device_figures& ours, const device_figures& others);

}  // namespace cenote::torch
