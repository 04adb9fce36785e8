// Memory of the host for chunks that are about to be pinned, touched by threads ahead of time: the host clears each
// page when it is touched first, which takes longer than pinning it.
//
//     threads, a chunk each     map, touch ──▶ ready, or soon: at most 16 ──▶ take() ──▶ pinned
//
// No thread waits for another one: the slowest delays its own chunk alone.
//
// Threads: it is used by one, and has up to eight of its own, which end with it or once all chunks are touched.
// Cost: 41 to 44 GB/s with the pinning, which is done meanwhile; 17 to 18 where all threads touch one chunk, and it is
// pinned, before the next (H200, 16 processors, driver 580.159.04).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <thread>
#include <vector>

#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class touched_chunks {
 public:
  static constexpr std::size_t chunk_bytes = std::size_t{32} << 20;

  /// `count` chunks are going to be taken.
  explicit touched_chunks(std::size_t count);
  ~touched_chunks();
  touched_chunks(const touched_chunks&) = delete;
  touched_chunks& operator=(const touched_chunks&) = delete;

  /// A chunk for which the host has found its memory, which is then the caller's to unmap. Null where it has none.
  /// One beyond `count` is as map() gives it.
  std::byte* take();

  /// A chunk that nobody has touched: the host finds its memory while it is pinned, on one thread. Null where there are
  /// no addresses for it.
  static std::byte* map() noexcept;
  static void unmap(std::byte* chunk) noexcept;

 private:
  void touch_ahead();

  object_mutex mutex_;  // guards all below
  std::condition_variable_any arrived_;
  std::condition_variable_any room_ahead_;
  std::vector<std::byte*> ready_;
  std::size_t not_begun_;  // chunks that no thread has begun to touch
  std::size_t being_touched_ = 0;
  std::vector<std::jthread> threads_;  // last, as they use the others
};

}  // namespace cenote::inline v1
