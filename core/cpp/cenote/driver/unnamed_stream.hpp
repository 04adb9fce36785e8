// The stream of a call that names none: the legacy default stream, or one that stands in for it.
//
// While a blocking stream is being captured, the legacy default stream may not be named: that would end the capture. A
// blocking stream of our own then takes its place. What is queued there runs, as on every blocking stream, after what
// was queued on the legacy one before; an event shows that, a wait for a stream with nothing on it does not.
//
// Threads: one. Cost: a question to the driver (accepts_work); while a blocking stream is captured, a stream and an
// event.
// Source: an event on a new blocking stream came after a kernel of 300 ms on the legacy one, beside a capture as well,
// and the capture stayed valid (driver 580, H200).
#pragma once

#include <optional>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class unnamed_stream {
 public:
  explicit unnamed_stream(int device);

  stream_ref view() const noexcept { return own_ ? own_->view() : stream_ref{}; }

  /// Waits on the host for the work queued on it, and on the legacy default stream before.
  void synchronize() const;

 private:
  int device_;
  std::optional<cuda_stream> own_;
};

}  // namespace cenote::inline v1
