// Frees of blocks that torch.Tensor.record_stream has named streams for: each when the work is done that those streams
// had at the free.
//
//     free ─► an event on each recorded stream ─► waiting, in order of the frees ─► done: the core's free
//
//   1. PyTorch keeps its own streams for ever, so that an event can be recorded on them at the free. A stream that a
//      program has brought may be gone by then: such blocks go the core's way, after all work of the device.
//   2. The table of blocks has the streams that were recorded, beside the block.
//   3. What waits is looked at with the next allocation on the device, from the oldest on. No stream is made to wait,
//      and no thread, unless memory runs out or empty_cache is called.
//   4. Beside a capture no event is recorded or asked for; the core's way knows how to hold a free back.
//
// Threads: any; each device's queue has its lock. The core's free is called without it.
// Cost: a free costs an event and a record for each recorded stream, and one query.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "live_block.hpp"

namespace cenote::torch {

class recorded_frees {
 public:
  /// Frees a block whose work is done.
  using finish = std::function<void(void* pointer, const live_block& block)>;

  explicit recorded_frees(finish done) : done_(std::move(done)) {}

  /// Frees the block when its recorded streams have done their work. False where no event can be had: nothing has
  /// happened.
  bool free_later(void* pointer, live_block& block);

  bool has_waiting(c10::DeviceIndex device) const noexcept {
    return of(device).count.load(std::memory_order_relaxed) != 0;
  }

  /// Frees what is done.
  void finish_done(c10::DeviceIndex device);

  /// Waits, and frees all.
  void finish_all(c10::DeviceIndex device);

  /// The blocks that wait, by address.
  std::vector<std::pair<std::uintptr_t, live_block>> waiting(c10::DeviceIndex device);

 private:
  struct waiting_free {
    void* pointer;
    live_block block;
    cudaEvent_t event;  // of most blocks the only one
    std::vector<cudaEvent_t> others;
  };
  struct device_queue {
    std::mutex mutex;  // guards all but `count`
    std::deque<waiting_free> waiting;
    std::vector<cudaEvent_t> spare;
    std::atomic<int> count{0};
  };

  device_queue& of(c10::DeviceIndex device) { return queues_[static_cast<std::size_t>(device)]; }
  const device_queue& of(c10::DeviceIndex device) const { return queues_[static_cast<std::size_t>(device)]; }
  void finish_front(c10::DeviceIndex device, bool waits);
  static cudaEvent_t mark_locked(device_queue& queue, cudaStream_t stream);
  static bool is_done_locked(device_queue& queue, waiting_free& first, bool waits);

  finish done_;
  std::array<device_queue, 128> queues_;
};

}  // namespace cenote::torch
