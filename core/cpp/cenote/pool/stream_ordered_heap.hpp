// The memory of a pool, and who may use which of it after what: its heap, with an owner for each stream, their
// timelines, and the front caches. Bookkeeping only.
//
//     front caches │   heap: owner A   │  owner B  │  ready
//     of A, of B   │  freed on A       │           │  everybody's
//
// How it works
//   1. A block that is freed on a stream is that stream's, in the epoch that its timeline is in; `ready` is
//      everybody's.
//   2. A stream takes what is its own or ready; or it borrows: what another stream has freed, with the mark that it
//      must have waited for. Who borrows says afterwards whether it has waited, and gives back what it could not wait
//      for.
//   3. Several streams' blocks are joined by passing them to one owner, which merges them: to `ready` once their marks
//      are complete, to a stream that has waited for all of them.
//   4. Marks are events, which others record and ask: what is freed says which mark is due, and place() brings it.
//
// Invariants: those of block_heap, front_caches, paged_range and pinned_blocks.
//
// Threads: none of its own; the pool locks. caches() are by themselves. No driver call is made; events that nobody
// needs any more are to be destroyed after the lock (stream_timelines::spares). Cost: O(1) for take() and free(),
// O(streams) for borrow(), O(blocks of the owners) for what joins.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/pool/front_caches.hpp"
#include "cenote/pool/pinned_blocks.hpp"
#include "cenote/pool/pool_counters.hpp"
#include "cenote/pool/request.hpp"
#include "cenote/pool/stream_timelines.hpp"
#include "cenote/structures/block_heap.hpp"
#include "cenote/structures/paged_range.hpp"

namespace cenote::inline v1::pool {

class stream_ordered_heap {
 public:
  static constexpr stream_id orphans = stream_timelines::orphans;

  using due_mark = stream_timelines::due_mark;

  /// A block that another stream has freed.
  struct borrowed {
    void* pointer;
    stream_id lender;
    stamp freed_at;
    mark covering;

    /// Of the mark that covers its free; null if none is needed.
    const event* awaited() const noexcept { return covering.happened.get(); }
  };

  /// The blocks of a stream up to a mark.
  struct claim {
    stream_id lender;
    mark upto;
  };

  /// What became of a block that was freed, and which mark is due.
  struct freed_block {
    std::size_t bytes;
    std::size_t asked_bytes;
    std::optional<due_mark> due;
  };

  stream_ordered_heap();

  front_caches& caches() noexcept { return caches_; }
  const front_caches& caches() const noexcept { return caches_; }
  spare_events& spares() noexcept { return timelines_.spares(); }

  /// Frees the block that was set aside. To be called before anything else, whenever the lock was taken.
  void collect_last_freed() noexcept;

  /// Says whether one may be set aside. To be called when the lock is let go.
  void allow_last_freed() noexcept { caches_.last().allow((timelines_.size() == 1 || spares_marks()) && !is_closed_); }

  bool knows(stream_id id) noexcept { return timelines_.find(id) != nullptr; }

  /// Forgets idle ones where many are known.
  void meet(stream_id id);

  // To allocate: null, or nothing, where there is none.

  /// What the stream may use at once: its own; what is ready; what its caches hold, which are
  /// emptied for it. Brings more of a size that the thread keeps asking for into its cache.
  void* take(const request& wanted);

  /// Whether the stream need break no whole page: a smaller block of its own, or a ready one, would do.
  bool has_piece(const request& wanted);

  /// The smallest block that another stream has freed, that a mark covers, and that has fewer bytes than `below`.
  std::optional<borrowed> borrow(const request& wanted, std::size_t below = max_allocation);
  void has_waited(const request& wanted, borrowed& found);
  void give_back(borrowed returned) noexcept;

  /// Makes the claimed blocks and the ready ones the stream's own, which joins them; it has waited for them. What it
  /// does not need is worth a mark, for others.
  void* take_claims(const request& wanted, const std::vector<claim>& claims, std::optional<due_mark>& due);

  /// All that is free, in the heap from now on. Ends the open epoch of every stream that has free blocks; none if only
  /// captures have any.
  std::vector<claim> claims_upon_all();

  /// From hold() to let_go(), take() and borrow() have nothing: what others free then is only added.
  void hold() noexcept { is_held_ = true; }
  void let_go() noexcept { is_held_ = false; }

  /// From close() to open() nothing is allocated or pinned; what is freed is only added.
  void close() noexcept {
    is_closed_ = true;
    allow_last_freed();
  }
  void open() noexcept { is_closed_ = false; }

  /// From now on a number of frees are each worth a mark: a stream went without what others had freed.
  void mark_at_once() noexcept { timelines_.mark_at_once(); }

  // To free.

  /// Nothing if no block in use starts at `pointer`.
  std::optional<freed_block> free(stream_id id, const void* pointer);

  /// Frees what a cache had no room for; a mark is due only where one `may_be`.
  std::optional<due_mark> free_spilled(stream_id id, block_index spilled, bool may_be_marked);

  void place(stream_id id, mark recorded) noexcept { timelines_.place(id, std::move(recorded)); }

  // To see what has become ready, and who is gone.

  bool is_crowded() const noexcept { return timelines_.may_be_a_crowd(); }
  void thin_out(stream_id spared) noexcept;

  std::vector<std::pair<stream_id, std::vector<mark>>> marks();
  void make_ready(const std::vector<claim>& settled);
  void count_event() noexcept { ++counters_.events; }
  void drop_idle(stream_id spared) noexcept;

  // Chunks.

  /// For everybody, or, with a stream, for that one. Throws as block_heap::add_chunk.
  void add_chunk(const chunk& fresh, std::optional<stream_id> of);
  /// Of the stream's owner, or of what is ready, after add_chunk().
  void* take_fresh(const request& wanted, std::optional<stream_id> of);
  std::vector<chunk> remove_free_chunks(std::optional<stream_id> of, const std::function<bool(const chunk&)>& wanted);
  bool has_chunk(const chunk& memory) const { return heap_.has_chunk(memory); }
  template <class Visit>
  void for_each_chunk(Visit&& visit) const {
    heap_.for_each_chunk(visit);
  }
  /// Bytes of chunks, or, of a range, bytes that have pages.
  std::size_t chunk_bytes() const noexcept { return heap_.chunk_bytes() - (range_ ? range_->unmapped_bytes() : 0); }

  // Pages, where the memory is a range of addresses.

  /// Before anything else is called.
  void be_a_range(std::byte* base, std::size_t bytes) { range_.emplace(heap_, ready_, base, bytes); }
  paged_range& range() noexcept { return *range_; }

  bool is_range() const noexcept { return range_.has_value(); }

  /// Pages are scarce: a freed block is joined at once with those beside it, whoever may use them.
  bool is_tight() const noexcept { return is_tight_.load(std::memory_order_relaxed); }
  void be_tight(bool is_tight) noexcept { is_tight_.store(is_tight, std::memory_order_relaxed); }

  bool is_unmapped(const block& b) const noexcept { return range_ && range_->is_unmapped(b); }

  /// Pages for a request of the stream: `asked` gets its owners. See paged_range.
  std::optional<paged_range::plan> plan_pages(const request& wanted, paged_range::request asked);
  void* complete(const request& wanted, const paged_range::plan& done);

  /// The same for pages that everybody may use.
  std::optional<paged_range::plan> plan_ready_pages(paged_range::request asked);
  void complete_ready(const paged_range::plan& done) noexcept;

  /// Takes wholly free ready pages out, at most `bytes`.
  std::vector<page> take_ready_pages_out(std::size_t bytes);

  std::size_t largest_own(stream_id id) { return heap_.largest_free(owner_of(id)); }

  // Pins, which keep pages and chunks where they are.

  /// Throws std::invalid_argument, with nothing changed: if no block in use starts at `pointer`; if there is no such
  /// pin.
  void pin(const void* pointer, pin_kind kind);
  void unpin(const void* pointer, pin_kind kind);
  const pinned_blocks& pins() const noexcept { return pins_; }

  // Captures, whose memory goes back when their graph is gone.

  /// Makes a capture known whose memory end_capture() will take back, where the memory is a range. Before anything else
  /// is called for the capture.
  void meet_capture(stream_id id);

  /// A capture goes on with the memory of an earlier one, which is over. Its first branch also with what others have
  /// freed of it since, as who launches the graphs has waited for them; for a later branch another one of this capture
  /// may have freed it, which it does not wait for.
  void continue_capture(stream_id earlier, stream_id id);

  /// The graph is gone, and its launches are done. But work from before the capture, and of others, may still use what
  /// was freed: that waits for a mark on `orphans`.
  void end_capture(stream_id id);

  // Figures.

  /// Caches change beside the lock.
  std::size_t bytes_in_use() const;
  /// With what lies in caches. See block_heap.
  std::size_t most_in_use_since() noexcept { return heap_.most_in_use_since(); }
  std::size_t blocks_in_use() const;

  /// The largest block that could be had without growing: also of blocks that lie side by side in caches, and
  /// freed on several streams, which a reclaim joins. Not of what captures keep. O(blocks).
  std::size_t largest_free() const;
  pool_counters counters() const;

  /// Whether somebody may want what the block holds: its user, or a graph.
  bool has_contents(const block& b) const noexcept { return !is_unmapped(b) && !(b.is_free && b.owner == ready_); }

  /// Every block of every chunk, in order of address, while no cache changes.
  void for_each_block(const std::function<void(const block&)>& visit) const;

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  owner_index owner_of(std::optional<stream_id> stream);
  bool takes_ready(const request& wanted) const noexcept;
  block_index find(owner_index owner, const request& wanted) const noexcept;
  void* take_from(owner_index owner, const request& wanted, std::uint64_t& path);
  void* take_found(block_index found, const request& wanted, std::uint64_t& path);
  void restock(const request& wanted, owner_index from) noexcept;
  void give(stream_timeline& to, block_index freed) noexcept;
  void absorb(stream_timeline& to, block_index beside) noexcept;
  bool empty_caches(std::optional<stream_id> only);
  std::size_t bytes_that_share_marks() const noexcept;
  /// Whether streams use none of one another's marks, and need not: who finds nothing gets new pages.
  bool spares_marks() const noexcept { return range_ && !is_tight() && timelines_.are_marks_unused(); }

  block_heap heap_;
  front_caches caches_{heap_};
  owner_index ready_;
  std::optional<paged_range> range_;
  pinned_blocks pins_;
  stream_timelines timelines_;
  pool_counters counters_;
  bool is_held_ = false;
  bool is_closed_ = false;
  std::atomic<bool> is_tight_{false};
};

}  // namespace cenote::inline v1::pool
