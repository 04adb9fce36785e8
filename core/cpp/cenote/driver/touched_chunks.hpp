// Memory of the host for chunks that are about to be pinned, touched by threads ahead of time: the host clears each
// page when it is touched first, which takes longer than pinning it.
//
//     pieces     taken │ touched, touched … touched │ being touched │ not begun
//                      └──── a chunk: take() ───┘
//
// Each thread touches a piece at a time, in the order of their addresses, until all are. A chunk is up to eight pieces
// in a row. All is mapped at once, because a call that maps memory delays threads that touch pages or pin them; for the
// same reason there are as many threads as processors, but for the one that pins: touching and pinning delay each
// other, most where a virtual machine's host gives the memory to it first, so that touching is to be over soon.
//
// Threads: it is used by one, and has up to 15 of its own, which end with it or once all pieces are touched.
// Cost: with the pinning, which is done meanwhile, 28 GB/s, where to touch all by eight threads and pin it in one call
// takes 20; 17.2 and 16.2 where the host gives the memory first. With eight threads it is 28 and 13, in chunks of one
// piece 32 and 8 (medians, H200, 16 processors, driver 580.159.04).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <thread>
#include <vector>

#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class touched_chunks {
 public:
  static constexpr std::size_t piece_bytes = std::size_t{32} << 20;

  /// Memory that begins at a multiple of a huge page.
  struct chunk {
    std::byte* at = nullptr;
    std::size_t bytes = 0;
  };

  /// Begins to touch what take() gives: so many bytes, rounded up to pieces.
  explicit touched_chunks(std::size_t bytes);
  ~touched_chunks();
  touched_chunks(const touched_chunks&) = delete;
  touched_chunks& operator=(const touched_chunks&) = delete;

  /// The next chunk, which is then the caller's to unmap. Beyond the bytes that were said it is a piece from map(), and
  /// so is each where there are no addresses for all bytes in a row.
  chunk take();

  /// Memory that nobody has touched: the host finds it while it is pinned, on one thread. Null where there are no
  /// addresses for it.
  static chunk map(std::size_t bytes = piece_bytes) noexcept;
  static void unmap(chunk memory) noexcept;

 private:
  void touch_ahead();

  object_mutex mutex_;  // guards all below
  std::condition_variable_any was_touched_;
  chunk all_;
  std::size_t pieces_ = 0;
  std::size_t begun_ = 0;
  std::size_t taken_ = 0;
  std::vector<bool> is_touched_;
  std::vector<std::jthread> threads_;  // last, as they use the others
};

}  // namespace cenote::inline v1
