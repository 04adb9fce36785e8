// A pool of graphs: what one capture has freed serves the later ones, as its graphs are launched one at a time.
//
//     begin ─ capture A ─ end    begin ─ capture B ─ end    release    release
//                      └─ what A has freed ─▶ B takes                  └─▶ memory goes back with the last graph
//
// Who captures says so by numbers of his own (PyTorch's are two). An allocator asks of_capture() which pool a capture
// is in.
//
// How it works
//   1. begin() opens a pool. The first capture that is asked about belongs to the pool that its thread opened last; if
//      it opened none, as a thread of autograd's does not, to the one that is open on the device; if there are several,
//      to none.
//   2. A pool takes one capture at an opening. What an earlier capture has left may be given to a later one on the same
//      stream: no stream is in two captures at once.
//   3. Each begin() counts one more, each release() one less. At 0 the pool is released: no later capture joins it.
//      A begin() with its numbers makes another one.
//
// Threads: any. Cost: a lock, and a look at each that is open.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace cenote::inline v1 {

class graph_pool {
 public:
  /// Who made the numbers keeps them apart.
  using number = std::pair<std::uint64_t, std::uint64_t>;

  static void begin(int device, number which);
  /// Throws std::invalid_argument, with nothing changed, for a pool that is not open.
  static void end(int device, number which);
  /// Throws std::invalid_argument, with nothing changed, for a pool that nobody counts on, or a last one that is open.
  static void release(int device, number which);

  /// The pool that a capture of a stream of `device` belongs to; null where it is in none. `is_any_over` is set when
  /// the pool is released.
  static std::shared_ptr<const graph_pool> of_capture(int device, std::uint64_t capture,
                                                      const std::shared_ptr<std::atomic<bool>>& is_any_over);

  bool is_released() const noexcept { return is_released_.load(std::memory_order_acquire); }

 private:
  struct table;
  static table& all();

  unsigned count_ = 0;  // guarded by the table's mutex, as the next
  std::vector<std::shared_ptr<std::atomic<bool>>> told_;
  std::atomic<bool> is_released_{false};
};

}  // namespace cenote::inline v1
