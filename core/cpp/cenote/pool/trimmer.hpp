// Gives back what a pool does not need: at once what is known to be done, and the rest at later calls.
//
//     trim(keep) ──▶ given back: what is everybody's
//                └─▶ unfinished: free blocks with pending work, and an event behind it ──▶ finish(), at a later call
//
// Invariant
//   I1  is_unfinished_ says whether `rest_` has something
//
// Threads: any; `mutex_` guards what is unfinished, and is taken by itself. Cost: trim(): O(free blocks), and the
// driver's; finish(): a load, where nothing is left.
#pragma once

#include <atomic>
#include <cstddef>
#include <optional>

#include "cenote/ground/mutex.hpp"
#include "cenote/pool/backing.hpp"
#include "cenote/pool/shared_heap.hpp"

namespace cenote::inline v1::pool {

class trimmer {
 public:
  trimmer(shared_heap& heap, backing& memory) : heap_(heap), memory_(memory) {}

  /// Gives back what is wholly free until `keep_bytes` are held; with `wait` after a wait on the host for all work.
  /// Returns how many bytes went at once.
  std::size_t trim(std::size_t keep_bytes, bool wait);

  /// Gives back what a trim could not, as far as the work that may use it is done by now: that of all streams, or that
  /// of the calling one.
  void finish(stream_ref stream, stream_id id) noexcept {
    if (is_unfinished_.load(std::memory_order_relaxed)) [[unlikely]]
      go_on(stream, id);
  }

 private:
  struct unfinished {
    std::size_t keep_bytes;
    shared_heap::pending left;
  };

  void go_on(stream_ref stream, stream_id id) noexcept;
  std::optional<unfinished> rest();
  std::optional<unfinished> take_rest();
  void keep_rest(unfinished kept);

  shared_heap& heap_;
  backing& memory_;
  object_mutex mutex_;
  std::optional<unfinished> rest_;
  std::atomic<bool> is_unfinished_{false};
};

}  // namespace cenote::inline v1::pool
