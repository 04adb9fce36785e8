// Whether a graph that work is captured into may still run: what it uses must stay where it is as long.
//
// The graph is given an object of ours to hold while it is captured (cuGraphRetainUserObject). The driver lets go of
// the object once the graph, its copies, its executables and their launches are gone, and when a capture is abandoned.
//
// Threads: any. The driver tells of the end on a thread of its own, on which it may not be called: a flag is set.
// Cost: three calls of the driver and two allocations of the host's memory a capture.
// Source: an H200 with driver 580.159.04, in all three modes of capture: while an executable that was destroyed still
// ran, the object was held; then, and where a capture was invalidated or its graph never made executable, it was let go
// of within 0.3 ms.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class graph_lifetime {
 public:
  /// Returns the lifetime of the graph that the stream is captured into. When it is over, `is_any_over` is set as well.
  /// Null, and reported, where the driver does not tell: the graph must then be taken to live for ever.
  static std::shared_ptr<const graph_lifetime> of_capture(
      stream_ref stream, int device, const std::shared_ptr<std::atomic<bool>>& is_any_over) noexcept;

  explicit graph_lifetime(std::shared_ptr<std::atomic<bool>> is_any_over) : is_any_over_(std::move(is_any_over)) {}

  /// All work of its launches is done by then.
  bool is_over() const noexcept { return is_over_.load(std::memory_order_acquire); }

 private:
  static void end(void* held) noexcept;

  std::atomic<bool> is_over_{false};
  const std::shared_ptr<std::atomic<bool>> is_any_over_;
};

}  // namespace cenote::inline v1
