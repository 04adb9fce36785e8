// Memory that another process maps too: torch.multiprocessing with CUDA tensors.
//
//   1. Pages go by the core's own handles (cenote_share, cenote_open_shared): the endpoint of the process gives them to
//      processes of the same user.
//   2. Plain driver memory goes by the driver's older handles.
//   3. What has been opened before is given out again while it lives. It ends after the work of its device, when the
//      last tensor over it is gone.
//
// PyTorch keeps the sender's block alive until the last receiver has let go, and orders the two by an event of its own.
//
// Threads: any; `mutex_` guards what is shared and what is open.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace cenote::torch {

class shared_memory {
 public:
  /// Throws c10::Error, with what to do, where the memory of the block cannot be shared.
  std::string share(void* pointer, std::size_t bytes, int device);

  /// The block is being freed.
  void forget(void* pointer) noexcept {
    if (shared_count_.load(std::memory_order_relaxed) != 0) withdraw(pointer);
  }

  static bool is_handle(const std::string& handle);

  /// The memory of a handle that share() of any process has made.
  std::shared_ptr<void> open(const std::string& handle);

 private:
  void withdraw(void* pointer) noexcept;

  std::atomic<std::size_t> shared_count_{0};
  std::mutex mutex_;  // guards `shared_`, and is taken by frees
  std::set<void*> shared_;
  std::mutex opening_;  // guards `open_`, also while another process is asked
  std::map<std::string, std::weak_ptr<void>> open_;
};

}  // namespace cenote::torch
