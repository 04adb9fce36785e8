// Blocks on offer: freed while other streams went without, each with a mark of its own, for whoever asks first.
//
//     free on A ──▶ │ freed │ ──event on A──▶ │ offered │ ──▶ allocate on B ──▶ │ taken │ ──wait on B──▶ │ awaited │
//
// How it works
//   1. To the heap a block on offer is in use, as one in a front cache is: it is not merged and not cut, so that
//      handing it over costs little more than the two calls of the driver.
//   2. These calls are made under no lock, by the thread that frees and by the one that allocates. When it is done, it
//      says so by the state of the offer alone (publish, was_awaited), without the lock.
//   3. Who asks for exactly its size gets it: its own stream at once, the newest first; another one after its mark, the
//      oldest first.
//   4. Who finds none of his size takes them all off, for the heap, with their marks.
//   5. What a wait has taught, that B follows A up to that mark, is harvested by the next who holds the lock; then the
//      place is vacant, and its event serves the next offer there.
//
// Invariants
//   I1  the block of each that nobody has taken is taken from the heap, cached and not kept, and of the size that
//       is said
//   I2  every place is either an offer's or vacant
//
// Threads: none of its own; the pool locks, but for publish() and was_awaited(), each for the one thread that has the
// offer in hand. Cost: O(most); no host memory is allocated after the beginning.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/driver/stream_id.hpp"
#include "cenote/pool/stream_timeline.hpp"
#include "cenote/structures/block_heap.hpp"

namespace cenote::inline v1 {

class offered_blocks {
 public:
  static constexpr std::size_t most = 32;

  struct offer {
    enum class state : std::uint8_t { freed, offered, taken, awaited };

    std::atomic<state> at{state::freed};
    block_index block = no_block;
    std::size_t bytes = 0;
    stream_id lender;
    stream_id borrower;
    mark freed;  // covers all that the lender did before it freed the block

    /// For the thread that has freed the block and has recorded the event since.
    void publish() noexcept { at.store(state::offered, std::memory_order_release); }

    /// For the thread that has taken the block, and whose stream waits for the event.
    void was_awaited() noexcept { at.store(state::awaited, std::memory_order_release); }

    bool is(state wanted) const noexcept { return at.load(std::memory_order_acquire) == wanted; }
    bool is_nobodys() const noexcept { return is(state::freed) || is(state::offered); }
  };

  /// What is taken off: the block goes to the lender, covered by the mark.
  struct withdrawn {
    block_index block;
    stream_id lender;
    mark freed;
  };

  /// What a wait has taught: the borrower follows the lender up to the epoch.
  struct lesson {
    stream_id borrower;
    stream_id lender;
    stamp epoch;
  };

  offered_blocks();

  /// A block that was freed in `epoch`, for whose mark an event is to be recorded: the one that is there, or another.
  /// Null where no place is vacant.
  offer* make(block_index freed, std::size_t bytes, stream_id lender, stamp epoch) noexcept;

  bool is_full() const noexcept { return vacant_.empty(); }

  /// The newest of `stream` with so many bytes, and the oldest of all with so many; null if none is offered.
  offer* find_own(stream_id stream, std::size_t bytes) noexcept;
  offer* find(std::size_t bytes) noexcept;

  /// Of one that was found, for which nobody waits; or one that has got no event. Its place is vacant.
  void remove(offer& removed) noexcept;

  /// Of one that was found: its block is taken, and the event to be waited for; or it could not be, and is offered
  /// again.
  void lend(offer& lent, stream_id borrower) noexcept;
  void give_back(offer& returned) noexcept;

  /// The oldest of all that are offered.
  std::optional<withdrawn> withdraw_oldest() noexcept;

  /// What one of those that were awaited has taught; its place is vacant.
  std::optional<lesson> harvest() noexcept;

  bool has_lender(stream_id stream) const noexcept;

  /// Of those that nobody has taken.
  std::size_t size() const noexcept;
  std::size_t bytes() const noexcept;

  /// Throws std::logic_error naming the invariant that does not hold.
  void check(const block_heap& heap) const;

 private:
  using state = offer::state;

  std::array<offer, most> places_;
  std::vector<offer*> offers_;  // oldest first
  std::vector<offer*> vacant_;
};

}  // namespace cenote::inline v1
