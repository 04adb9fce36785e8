// The streams that a pool knows, each with its timeline, and which marks are due.
//
// How it works
//   1. A stream gets a timeline, and an owner in the heap, when it is first met. Mostly one of the last two is asked
//      for again, so those are remembered.
//   2. A stream of which no free block is left may be dropped. A later timeline starts above every epoch of those that
//      were dropped, so that what others know of the earlier one says nothing of the later.
//   3. A mark is due where a timeline's open epoch holds enough; or, after a stream went without what others had freed,
//      for the next few frees at once, and for as many more after each mark that somebody has waited for. It is known
//      whether anybody has used any of the last 256.
//   4. Streams that are gone leave what they freed last, in the heap or in caches. When they may have become a crowd,
//      one event marks all of it, and what an event covers is made ready.
//   5. The event of a mark that nobody needs any more serves a later one (spare_events).
//
// Invariant
//   I1  first_epoch_ is above every epoch of the timelines that were dropped
//
// Threads: none of its own; the pool locks. No driver call is made.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cenote/pool/front_caches.hpp"
#include "cenote/pool/spare_events.hpp"
#include "cenote/pool/stream_timeline.hpp"
#include "cenote/structures/block_heap.hpp"

namespace cenote::inline v1::pool {

class stream_timelines {
 public:
  /// An epoch that was closed, and an event for its mark if one was left over from an earlier one.
  struct due_mark {
    stamp epoch;
    std::shared_ptr<event> reused;
  };

  /// Blocks freed on a stream that the driver would not identify: no stream may use them before a reclaim.
  static constexpr stream_id orphans{~std::uint64_t{1}};

  /// Null for a stream that the pool does not know.
  stream_timeline* find(stream_id id) noexcept {
    for (stream_timeline* const recent : recent_) {
      if (recent != nullptr && recent->id() == id) return recent;
    }
    return find_among_all(id);
  }

  /// The timeline whose free blocks have this owner; null where it is no stream's.
  const stream_timeline* of_owner(owner_index owner) const noexcept {
    return owner < by_owner_.size() ? by_owner_[owner] : nullptr;
  }

  /// The timeline of a stream, which is made for one that is not known. Throws std::bad_alloc, and std::length_error
  /// where the heap has no owner left.
  stream_timeline& meet(stream_id id, block_heap& heap) {
    stream_timeline* const known = find(id);
    return known != nullptr ? *known : make(id, heap);
  }

  std::size_t size() const noexcept { return timelines_.size(); }

  /// Whether so many streams are known that idle ones are dropped even where memory is plentiful.
  bool are_many() const noexcept;

  /// Whether so many were met since the last time that those may be a crowd which are gone and have left free blocks.
  bool may_be_a_crowd() const noexcept { return met_ >= crowd_; }
  void expect_a_crowd() noexcept;

  auto begin() noexcept { return timelines_.begin(); }
  auto end() noexcept { return timelines_.end(); }
  auto begin() const noexcept { return timelines_.begin(); }
  auto end() const noexcept { return timelines_.end(); }

  /// Drops all that have no free block left, but those of captures, and the one `spared`.
  void drop_idle(stream_id spared, block_heap& heap, front_caches& caches) noexcept;

  /// Drops one of a capture, whose owner has no free block left and keeps none.
  void drop(stream_id id, block_heap& heap, front_caches& caches) noexcept;

  /// Gives the timeline of a capture to a later one.
  void rename(stream_id from, stream_id to) noexcept;

  /// Ends the open epoch if a mark is due in a pool of so many bytes. None ever is while there is one stream.
  std::optional<due_mark> close_if_worth_a_mark(stream_timeline& timeline, std::size_t pool_bytes) noexcept;

  /// Ends the open epoch; its mark is due.
  due_mark close(stream_timeline& timeline) noexcept;

  /// From now on a number of frees are each worth a mark.
  void mark_at_once() noexcept;

  /// Somebody has waited for a mark.
  void was_awaited() noexcept;

  /// Somebody went without what others had freed, or a mark has told that it is ready.
  void need_marks() noexcept { unused_marks_ = 0; }

  /// Whether so many marks in a row were of no use to anybody that fewer will do.
  bool are_marks_unused() const noexcept { return unused_marks_ >= many_unused_marks; }

  /// Places a mark if its stream is still known.
  void place(stream_id id, mark placed) noexcept;

  /// Forgets the marks up to `epoch`: nothing that they cover is left.
  void forget_marks(stream_timeline& timeline, stamp epoch) noexcept;

  spare_events& spares() noexcept { return spares_; }

 private:
  static constexpr std::size_t least_crowd = 1024;
  static constexpr std::size_t many_unused_marks = 256;  // 100 µs of events: about what doing without them once costs

  stream_timeline* find_among_all(stream_id id) noexcept;
  stream_timeline& make(stream_id id, block_heap& heap);
  bool is_marked(const stream_timeline& timeline) const noexcept;

  std::unordered_map<stream_id, stream_timeline> timelines_;
  std::vector<stream_timeline*> by_owner_;  // null for an owner that is no stream's
  std::array<stream_timeline*, 2> recent_{};
  stamp first_epoch_ = 1;
  std::size_t captures_ = 0;  // timelines of captures: they stay
  std::size_t frees_to_mark_ = 0;
  std::size_t unused_marks_ = 0;
  std::size_t met_ = 0;  // since the last time that they may have been a crowd
  std::size_t crowd_ = least_crowd;
  spare_events spares_;
};

}  // namespace cenote::inline v1::pool
