// A pool of graphs that are launched one at a time: what one capture has freed serves the later ones.
//
//     begin ─ capture A ─ end      begin ─ capture B ─ end      release      release
//                      └─ what A has freed ─▶ B takes
//
// Who captures says so by numbers of his own (PyTorch's are two). An allocator asks of_capture() which pool a capture
// is in. The memory goes back with the graphs that use it, whoever has released what (graph_lifetime.hpp).
//
// How it works
//   1. begin() opens a pool, for the capture that its filter knows: that which a stream is in, or whatever the caller
//      says. Which thread asks is of no matter.
//   2. What an earlier capture has left may be given to a later one on the same stream: no stream is in two captures at
//      once.
//   3. Each begin() counts one more, each release() one less. At 0 no later capture joins these graphs: a begin() with
//      the numbers makes another pool.
//
// Threads: any. A filter is asked without a lock, as long as the pool is open and at most one question longer.
// Cost: a lock, and a question to each that is open.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class graph_pool {
 public:
  /// Who made the numbers keeps them apart.
  using number = std::pair<std::uint64_t, std::uint64_t>;

  /// Whether a stream, which is being captured, is in the capture that is meant.
  using filter = std::function<bool(stream_ref stream)>;

  /// The filter of the capture that `origin` is in whenever it is asked.
  static filter same_capture_as(stream_ref origin, int device);

  static void begin(int device, number which, filter takes);
  /// Closes what the calling thread has opened last, or else anybody. Throws std::invalid_argument, with nothing
  /// changed, for a pool that is not open.
  static void end(int device, number which);
  /// Throws std::invalid_argument, with nothing changed, for a pool that nobody counts on.
  static void release(int device, number which);

  /// The pool that the capture of a stream of `device` belongs to; null where it is in none. What a filter throws
  /// passes through.
  static std::shared_ptr<const graph_pool> of_capture(stream_ref stream, int device);

 private:
  struct table;
  static table& all();

  unsigned count_ = 0;  // guarded by the table's mutex
};

}  // namespace cenote::inline v1
