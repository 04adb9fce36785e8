// What a pool knows of one stream: which of the blocks freed on it other streams may use, and after what.
//
//     frees on the stream   f f f f │ f f f │ f f          time →
//     epoch                    1    │   2   │  3 (open)
//     marks                         E1      E2
//
// A block freed in epoch n may be used by another stream once that stream has waited for any mark at n or later. Blocks
// of the open epoch have no mark yet: only the stream itself may use them. An event is recorded when an epoch is
// closed, which happens once for many frees, and only inside a call that passes the stream.
//
// Invariants
//   I1  marks are in order of epoch, and all below the open epoch
//   I2  at most max_marks are kept; dropping the oldest makes others wait for a later one, never for too little
//
// Threads: none of its own; the pool locks.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/driver/event.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/structures/block.hpp"

namespace cenote::inline v1::pool {

struct mark {
  stamp epoch = 0;
  std::shared_ptr<event> happened;
};

class stream_timeline {
 public:
  /// `first_epoch` must be above every epoch of an earlier timeline of the same stream.
  stream_timeline(stream_id id, owner_index owner, stamp first_epoch)
      : id_(id), owner_(owner), open_epoch_(first_epoch) {}

  stream_id id() const noexcept { return id_; }
  void rename(stream_id id) noexcept { id_ = id; }

  /// The owner of the blocks freed on this stream, in the pool's heap.
  owner_index owner() const noexcept { return owner_; }

  stamp open_epoch() const noexcept { return open_epoch_; }

  /// Counts a block freed in the open epoch.
  void count_free(std::size_t bytes) noexcept;

  /// Whether the open epoch is worth a mark in a pool of `pool_bytes`: 32 blocks were freed in it, or a thirty-second
  /// of the pool.
  bool is_worth_a_mark(std::size_t pool_bytes) const noexcept;

  /// Ends the open epoch and returns it; a mark for it can be placed once an event has been recorded.
  stamp close_epoch() noexcept;

  /// Returns the mark that had to go for it, if one had to: the earliest, which may be itself.
  std::optional<mark> place_mark(mark placed) noexcept;

  /// The earliest mark that covers blocks freed at `freed_at`; null if there is none yet.
  const mark* covering(stamp freed_at) const noexcept;

  /// All marks, earliest first.
  std::vector<mark> marks() const;

  /// Takes out the earliest mark if it is of `epoch` or before; none if it is not.
  std::optional<mark> take_mark(stamp epoch) noexcept;

  /// Up to which epoch of `other` this stream has waited already.
  stamp known_of(stream_id other) const noexcept;
  void learn(stream_id other, stamp epoch);
  template <class Gone>
  void unlearn_if(Gone&& is_gone) noexcept {
    std::erase_if(known_, [&](const auto& each) { return is_gone(each.first); });
  }

 private:
  static constexpr std::size_t max_marks = 8;

  mark& nth_mark(std::size_t n) noexcept { return marks_[(first_mark_ + n) % max_marks]; }
  const mark& nth_mark(std::size_t n) const noexcept { return marks_[(first_mark_ + n) % max_marks]; }

  stream_id id_;
  owner_index owner_;
  stamp open_epoch_;
  std::size_t unmarked_frees_ = 0;
  std::size_t unmarked_bytes_ = 0;
  std::array<mark, max_marks> marks_;  // a ring, from first_mark_ on
  std::size_t first_mark_ = 0;
  std::size_t mark_count_ = 0;
  std::vector<std::pair<stream_id, stamp>> known_;  // few: a stream that has nothing to lend is forgotten
};

}  // namespace cenote::inline v1::pool
