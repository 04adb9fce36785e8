// Memory that another process maps too: torch.multiprocessing with CUDA tensors.
//
//     sender   tensor ─► pages ─► file descriptors ──(Unix socket)──► handles ─► a range of addresses   receiver
//
//   1. The sender's handle is a text: the name of a socket, and the block. Nothing is exported until somebody asks.
//   2. A thread of the sender answers, to processes of the same user alone: the driver's handle of each page under the
//      block, as a file descriptor that is closed once it was sent. So a large tensor does not use them up.
//   3. The receiver maps the pages in a row. What has been opened before is given out again while it lives. It is
//   unmapped
//      after the work of its device, when the last tensor over it is gone.
//   4. Plain driver memory goes by the driver's older handles.
//
// PyTorch keeps the sender's block alive until the last receiver has let go. Pages are sent whole: what else lies in
// the first and the last one is readable there, for the same user.
//
// Threads: any; `mutex_` guards what is open. A forked child that shares gets a socket and a thread of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace cenote::torch {

class shared_memory {
 public:
  /// Says how many bytes the live block at that address has; 0 for none.
  using find_block = std::function<std::size_t(void* pointer)>;

  explicit shared_memory(find_block find) : find_(std::move(find)) {}

  /// Throws c10::Error, with what to do, where the memory of the block cannot be shared.
  std::string share(void* pointer, std::size_t bytes, int device);

  static bool is_handle(const std::string& handle);

  /// The memory of a handle that share() of any process has made.
  std::shared_ptr<void> open(const std::string& handle);

 private:
  void serve_locked();
  void answer(int connection) const;
  static std::shared_ptr<void> map(const std::string& socket, std::uint64_t address, std::uint64_t bytes, int device);

  find_block find_;
  std::mutex mutex_;  // guards all below
  std::string socket_;
  int owner_ = 0;  // the process that serves it
  std::map<std::string, std::weak_ptr<void>> open_;
};

}  // namespace cenote::torch
