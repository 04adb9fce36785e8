// Blocks on offer: freed while other streams went without, each with a mark of its own, for whoever asks first.
//
//     free on A  ──▶  event on A  ──▶  │ block · A · mark │  ──▶  allocate on B: wait for the event
//
// How it works
//   1. To the heap a block on offer is in use, as one in a front cache is: it is not merged and not cut, so that
//      handing it over costs little more than the two calls of the driver.
//   2. Who asks for exactly its size gets it: its own stream at once, the newest first; another one after its mark, the
//      oldest first.
//   3. Who finds none of his size takes them all off, for the heap, with their marks.
//
// Invariants
//   I1  each is taken, cached and not kept, and of the size that is said
//   I2  at most `most` of them
//   I3  bytes() is the sum of their sizes
//
// Threads: none of its own; the pool locks. Cost: O(most); no host memory is allocated after the beginning.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "cenote/resources/stream_timeline.hpp"
#include "cenote/structures/block_heap.hpp"

namespace cenote {

class offered_blocks {
 public:
  static constexpr std::size_t most = 32;

  struct offer {
    block_index block;
    std::size_t bytes;
    stream_id lender;
    mark freed;  // covers all that the lender did before it freed the block
  };

  offered_blocks() { offers_.reserve(most); }

  bool is_full() const noexcept { return offers_.size() == most; }

  /// There must be room.
  void add(offer made) noexcept;

  /// The newest of `stream` with so many bytes.
  std::optional<offer> take_own(stream_id stream, std::size_t bytes) noexcept;

  /// The oldest with so many bytes.
  std::optional<offer> take(std::size_t bytes) noexcept;

  /// The oldest of all.
  std::optional<offer> take_oldest() noexcept;

  std::size_t size() const noexcept { return offers_.size(); }
  std::size_t bytes() const noexcept { return bytes_; }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check(const block_heap& heap) const;

 private:
  std::optional<offer> take_at(std::vector<offer>::iterator place) noexcept;

  std::vector<offer> offers_;  // oldest first
  std::size_t bytes_ = 0;
};

}  // namespace cenote
