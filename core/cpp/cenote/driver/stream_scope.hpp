// The context in which a call names a stream: a default stream is that of the current context, so that the device's is
// made current for it; a handle of its own carries its context with it, and needs none to be current.
//
// Cost: nothing for a handle of its own; that of a device_scope for a default stream.
// Source: tried with cuStreamIsCapturing, cuStreamGetId, cuEventRecord and cuStreamWaitEvent (driver 580, H100).
#pragma once

#include <optional>

#include "cenote/driver/device.hpp"
#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class stream_scope {
 public:
  stream_scope(stream_ref stream, int device) {
    if (stream.is_legacy_default() || stream.is_per_thread_default()) context_.emplace(device);
  }

 private:
  std::optional<device_scope> context_;
};

}  // namespace cenote::inline v1
