// Memory of the host for chunks that are about to be pinned, touched by threads ahead of time: the host clears each
// page when it is touched first, which takes longer than pinning it.
//
//     pieces     taken │ touched, touched … touched │ being touched │ not begun
//                      └──── a chunk: take() ───┘   at most 32 from what is taken on
//
// Each thread touches a piece at a time, in the order of their addresses, and none waits for another one. A chunk is up
// to eight pieces in a row: where a virtual machine's host pins the memory too, few calls are faster while threads
// touch. All is mapped at once, because a call that maps memory delays threads that touch pages or pin them.
//
// Threads: it is used by one, and has up to eight of its own, which end with it or once all pieces are touched.
// Cost: with the pinning, which is done meanwhile, 31 GB/s, where to touch all and pin it in one call takes 19 to 21;
// 13.0 and 13.6 where the host gives the memory to the virtual machine first. In chunks of one piece it is 32 and 8
// (medians, H200, 16 processors, driver 580.159.04).
#pragma once

#include <array>
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
  static constexpr std::size_t most_ahead = 32;

  void touch_ahead();

  object_mutex mutex_;  // guards all below
  std::condition_variable_any was_touched_;
  std::condition_variable_any was_taken_;
  chunk all_;
  std::size_t pieces_ = 0;
  std::size_t begun_ = 0;
  std::size_t taken_ = 0;
  std::array<bool, most_ahead> is_touched_{};  // piece n, begun and not taken, at n % most_ahead
  std::vector<std::jthread> threads_;          // last, as they use the others
};

}  // namespace cenote::inline v1
