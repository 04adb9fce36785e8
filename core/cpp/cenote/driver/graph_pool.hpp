// A pool of graphs that are launched one at a time: what one capture has freed serves the later ones.
//
//     begin ─ capture A ─ end      begin ─ capture B ─ end      release      release
//                      └─ what A has freed ─▶ B takes
//
// A program that captures names the pool by two numbers of its own, as PyTorch does. An allocator asks of_capture()
// which pool a capture is in. The memory goes back with the graphs that use it, whoever has released what
// (graph_lifetime.hpp).
//
// How it works
//   1. begin() opens a pool, for the capture that its filter knows: that which a stream is in, or whatever the caller
//      says. Which thread asks is of no matter, but where the capture begins on a thread's own default stream, which
//      other threads cannot name: what they ask about is in no pool.
//   2. What an earlier capture has left may be given to a later one on the same stream: no stream is in two captures at
//      once.
//   3. Each begin() counts one more, each release() one less. At 0 no later capture joins these graphs: a begin() with
//      the numbers makes another pool.
//
// Threads: any. A filter is asked by one thread at a time, and not once end() has returned. It may call the driver; it
// must not wait for another thread, allocate, or begin and end.
// Cost: a lock, and a question to each that is open.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class graph_pool {
 public:
  /// The caller's own: two callers choose different ones.
  using number = std::pair<std::uint64_t, std::uint64_t>;

  /// Whether a stream, which is being captured, is in the capture that is meant. One that throws is reported, and knows
  /// nothing.
  using filter = std::function<bool(stream_ref stream)>;

  static void begin(int device, number which, filter takes);
  /// For the capture that `origin` is in whenever that is asked. It lives until the end.
  static void begin(int device, number which, stream_ref origin);
  /// Closes what the calling thread has opened last, or else anybody. Returns whether its capture is still going on, as
  /// far as that is known: PyTorch ends and begins anew within one. Throws std::invalid_argument, with nothing changed,
  /// for a pool that is not open.
  static bool end(int device, number which);
  /// Throws std::invalid_argument, with nothing changed, for a pool that nobody counts on.
  static void release(int device, number which);

  /// The pool that the capture of a stream of `device` belongs to; null where it is in none.
  static std::shared_ptr<const graph_pool> of_capture(stream_ref stream, int device);

 private:
  class opening;
  static void begin(int device, number which, filter takes, std::optional<stream_ref> origin);
  struct table;
  static table& all();

  unsigned count_ = 0;  // guarded by the table's mutex
};

}  // namespace cenote::inline v1
