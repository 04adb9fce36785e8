// A block that other processes of the same user can map, without a copy.
//
//     owner      block_offer ─► handle, a text ─ ─(pipe, file, Dask …)─ ─► opened_memory_resource     another process
//                    ▲                                                          │
//                endpoint ◄────────── Unix socket: which offer, its key ────────┘
//                    └──► an event, and a descriptor of each page under the block ─► mapped in a row
//
// How it works
//   1. Nothing is exported until somebody asks. The memory must be pages that were made for it, as those of
//      `pool | virtual` are. What is sent are the pages under the block, whole: what else lies in the first and the
//      last of them can be read there, too, by the same user.
//   2. While another process has the block open, the owner keeps it: the offer holds what `hold` returned, and the pool
//      pins the block as `exported`. That ends when the other process closes it or ends, in whatever way. If the owner
//      ends first, the memory stays for those that have it.
//   3. Order: work that the opener queues on its stream comes after what the owner had queued on `stream` when it
//      shared the block last. The opener's work is done when it lets go: its host waits for that.
//   4. The opener gets a resource that has just this block to give, once. So whatever holds memory of a resource can
//      hold it, and frees it in stream order.
//
// Threads: any; an opened block is one thread's at a time, as other memory.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// The owner's side: as long as it lives, processes of the same user that have the handle can open the block.
class block_offer {
 public:
  /// Returns what keeps the block where it is, and null where it has been freed by now. Called by a thread of cenote's,
  /// each time that a process opens the block; what it has returned ends there, too.
  using hold_function = std::function<std::shared_ptr<void>()>;

  /// The bytes at `address`, of a block of `resource`. `stream` is where they were written. Throws std::runtime_error,
  /// which says what to do, for memory that other processes cannot map, and cuda_error.
  block_offer(const void* address, std::size_t bytes, stream_ref stream, std::shared_ptr<memory_resource> resource,
              hold_function hold);

  /// Nobody can open it any more. Those that have it keep it.
  ~block_offer();
  block_offer(const block_offer&) = delete;
  block_offer& operator=(const block_offer&) = delete;

  /// Those that open it from now on come after what is queued on `stream` by now.
  void share_again(stream_ref stream);

  const void* address() const noexcept;
  std::size_t bytes() const noexcept;

  /// A text without blanks, to be sent to other processes.
  const std::string& handle() const noexcept;

 private:
  class answers;

  std::shared_ptr<answers> answers_;
  std::string handle_;
  unsigned long long number_, key_;  // at the endpoint
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
