// Captures as programs announce them, and the pools of graphs that they belong to.
//
//     begin_capture(0) ─ … cudaStreamBeginCapture … cudaStreamEndCapture … ─ end_capture(0)
//
// Threads: any. All throw std::out_of_range for a device that there is not, and what graph_pool throws, with nothing
// changed.
#pragma once

#include "cenote/driver/graph_pool.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

CENOTE_EXPORT void begin_capture(int device);

/// Frees what was held back meanwhile, if no other capture is announced.
CENOTE_EXPORT void end_capture(int device);

/// The same for a capture whose memory is that of a pool of graphs: the capture that begins on a stream, or whose
/// streams the filter knows.
CENOTE_EXPORT void begin_capture_into(int device, graph_pool::number pool, stream_ref stream);
CENOTE_EXPORT void begin_capture_into(int device, graph_pool::number pool, graph_pool::filter takes);
/// Frees what was held back only where the capture is over, as far as that is known.
CENOTE_EXPORT void end_capture_into(int device, graph_pool::number pool);

/// One capture less counts on the pool. At the last no later capture joins it. Never throws std::out_of_range.
CENOTE_EXPORT void release_graph_pool(int device, graph_pool::number pool);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
