// A stream of cenote's own on each device, for what is to wait while no stream of the program's has to.
//
// Memory whose last use cannot be named on a stream of its device is freed in the order of this one: it waits, on the
// device, for all work that may use the memory, and nothing else runs on it.
//
// Threads: all functions from any thread. Cost: a stream for each device that needs one; it is never destroyed.
#pragma once

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

/// Independent of the legacy default stream.
stream_ref aside_stream(int device);

/// That stream, after it has been made to wait for the work queued on `other` so far, a stream of any device.
stream_ref aside_stream_after(stream_ref other, int device);

}  // namespace cenote::inline v1
