// The statistics of one device, by PyTorch's definitions (c10::CachingDeviceAllocator::DeviceStats).
//
//   1. Each allocation and free counts blocks and bytes: all of them, and those of its kind, small (up to 1 MiB) or
//      large.
//   2. What is reserved is the core's figure. It is set from outside, as are the figures of private pools, whenever
//      somebody asks and whenever they are known to have grown.
//
// Threads: none of its own.
#pragma once

#include <cstddef>

#include "live_block.hpp"
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
  void add(const live_block& block) {
    increase(figures_.allocation, block, 1);
    increase(figures_.active, block, 1);
    increase(figures_.allocated_bytes, block, block.bytes);
    increase(figures_.active_bytes, block, block.bytes);
    increase(figures_.requested_bytes, block, block.requested);
  }

  /// The program lets go, and then the memory may be used again.
  void remove_allocated(const live_block& block) {
    decrease(figures_.allocation, block, 1);
    decrease(figures_.allocated_bytes, block, block.bytes);
    decrease(figures_.requested_bytes, block, block.requested);
  }
  void remove_active(const live_block& block) {
    decrease(figures_.active, block, 1);
    decrease(figures_.active_bytes, block, block.bytes);
  }

  void add_retry() { ++figures_.num_alloc_retries; }
  void add_out_of_memory() { ++figures_.num_ooms; }
  void set_reserved(const reserved_figures& now);
  void reset_accumulated();
  void reset_peak();

  const device_figures& figures() const { return figures_; }
  std::size_t allocated_bytes() const { return static_cast<std::size_t>(figures_.allocated_bytes[all_kinds].current); }

 private:
  using stat_array = c10::CachingAllocator::StatArray;

  static constexpr std::size_t all_kinds = 0;
  static constexpr std::size_t small_kind = 1;
  static constexpr std::size_t large_kind = 2;

  static void increase(stat_array& figure, const live_block& block, std::size_t amount) {
    figure[all_kinds].increase(amount);
    figure[block.is_large ? large_kind : small_kind].increase(amount);
  }
  static void decrease(stat_array& figure, const live_block& block, std::size_t amount) {
    figure[all_kinds].decrease(amount);
    figure[block.is_large ? large_kind : small_kind].decrease(amount);
  }
  static void set(stat_array& figure, std::size_t small_now, std::size_t large_now);

  device_figures figures_;
};

/// Adds the figures of another allocator of the same device. A peak is at most the sum of both peaks; what is given is
/// the larger of the other's and ours beside what the other has now.
void add_figures(device_figures& ours, const device_figures& others);

}  // namespace cenote::torch
