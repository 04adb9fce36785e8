// A stream as an owner remembers it, beyond the call that passed it: the handle, and which thread's stream it means.
//
// The per-thread default stream has one handle, 2, on every thread. On another thread the same handle means that
// thread's stream, and nothing names the stream that was meant: not its handle, not its id. Only an event over the
// whole context covers its work, also after its thread has ended. So whoever keeps a stream keeps the thread with it,
// and asks is_known_here() before using the handle.
//
//     is_known_here()     the handle is the stream              order by an event on it
//     otherwise           some other thread's default stream    order after all work of the device
//
// Order and captures. Work that is being captured does not run now, and a graph cannot wait for what was queued before.
// Between a stream in a capture and one outside of it there is therefore nothing to order, and asking the driver for it
// would end the capture; order_after leaves such a pair alone. Two streams in one capture are ordered within the graph.
//
// Threads: a value. Cost: nothing for any other stream; a number of the thread is read for the per-thread default one.
#pragma once

#include <cstdint>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class kept_stream {
 public:
  kept_stream(stream_ref stream) noexcept  // implicit: as the calling thread means it
      : handle_(stream), thread_(stream.is_per_thread_default() ? this_thread() : 0) {}

  /// Means the stream only where it is known.
  stream_ref handle() const noexcept { return handle_; }

  /// Whether the handle means the same stream on the calling thread.
  bool is_known_here() const noexcept { return thread_ == 0 || thread_ == this_thread(); }

  friend bool operator==(const kept_stream&, const kept_stream&) noexcept = default;

 private:
  static std::uint64_t this_thread() noexcept;

  stream_ref handle_;
  std::uint64_t thread_;  // the one whose per-thread default stream it is; 0 for every other stream
};

/// Work queued on `later` from now on runs after the work queued on `earlier` so far. The devices say whose a default
/// stream is; a handle of its own may be any device's. The device waits; the host does where `later` is not known here,
/// or may not be named beside the capture of a blocking stream. Throws std::runtime_error where only an event could
/// help that would end a capture.
CENOTE_EXPORT void order_after(const kept_stream& later, int later_device, const kept_stream& earlier,
                               int earlier_device);

/// Waits on the host for the work queued on `stream` so far. Throws as order_after does.
CENOTE_EXPORT void synchronize(const kept_stream& stream, int device);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
