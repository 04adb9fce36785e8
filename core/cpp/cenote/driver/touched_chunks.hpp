// Memory of the host for chunks that are about to be pinned, touched by threads ahead of time: the host clears each
// page when it is touched first, which takes longer than pinning it.
//
//     pieces     taken │ touched, touched … touched │ being touched │ not begun
//                      └──── a chunk: take() ───┘
//
// Each thread touches a piece at a time, in the order of their addresses, until all are. All is mapped at once, because
// a call that maps memory delays threads that touch pages or pin them. Touching and pinning delay each other, too, and
// most where a virtual machine's host is slow to give its memory. So touching is over soon: by as many threads as there
// are processors but for the one that pins, and at most 15, which is what was measured; a process that may use fewer
// processors loses their time for as long. And few calls pin while it goes on: a chunk is half of what is left, but at
// least 256 MiB, or all, and at most 1 GiB. So chunks get smaller towards the end, and little is left to copy once the
// last one is pinned.
//
// Threads: it is used by one, and has up to 15 of its own, which end with it or once all pieces are touched.
// Cost, for 2 GiB, pinning included, in GB/s (H200, 16 processors, driver 580.159.04). The memory is at hand, or a
// virtual machine's host gives it first, which is slow once it has given some tens of GiB. Where it is at hand chunks
// of 256 MiB would be faster; where the host is slow they take twice the time.
//
//                                                        at hand     given first   by a slow host
//     by halves                                          23 to 29    17            3.0 to 5.6
//     in chunks of 256 MiB                               28 to 39    15 to 17      1.9 to 2.3
//     touched by eight threads, then pinned by one call  14 to 25    11 to 17      2.5 to 4.8
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
  std::vector<bool> is_touched_;       // each piece
  std::vector<std::jthread> threads_;  // last, as they use the others
};

}  // namespace cenote::inline v1
