// A pool's heap under its lock, and what the driver must be asked for it: who a stream is, events behind frees, waits
// before blocks of other streams are used, and when a graph is gone.
//
// How it works
//   1. Whoever uses the heap does so in a section, which holds the lock. No driver call is made in one: what is to be
//      asked is taken out of the heap, asked, and put back.
//   2. The steps of an allocation that need no other memory than the heap's are here: take, borrow, settle, reclaim.
//   3. An event behind a free is a mark. Marks are placed for many frees at once (stream_timelines), or, by mark_all(),
//      as one event over the context for all that is free.
//
// Invariants: those of stream_ordered_heap.
//
// Threads: any; `mutex_` guards the heap, which takes the locks of the caches after it. Cost: O(1) for take(),
// O(streams) for borrow() and settle(), O(blocks of the owners) for reclaim(). The host waits in wait_for_all_work() on
// a driver before 12.5, and in settle_after_all_work().
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cenote/driver/event.hpp"
#include "cenote/driver/graph_lifetime.hpp"
#include "cenote/driver/graph_pool.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/pool/request.hpp"
#include "cenote/pool/stream_ordered_heap.hpp"

namespace cenote::inline v1::pool {

class shared_heap {
 public:
  using claim = stream_ordered_heap::claim;
  using due_mark = stream_ordered_heap::due_mark;

  /// A stream that cannot be asked, and whoever has freed blocks that no stream will use again.
  static constexpr stream_id orphans = stream_ordered_heap::orphans;

  /// What is said where a free comes from a stream that the driver would not tell about.
  static constexpr const char* freed_on_nobodys_stream =
      "a block was freed to a pool on a stream that cannot be asked; it is not used again before a wait for all work "
      "of the device: ";

  /// Free blocks that work may still use, and an event behind that work: null if there was none to be had.
  struct pending {
    std::vector<claim> blocks;
    std::shared_ptr<event> done = nullptr;
  };

  /// Holds the lock while it lives. Then it destroys events that nobody needs any more.
  class section {
   public:
    explicit section(shared_heap& heap) : heap_(heap), lock_(heap.mutex_) { heap.heap_.collect_last_freed(); }
    ~section() {
      if (!lock_.owns_lock()) return;
      heap_.heap_.allow_last_freed();
      if (heap_.heap_.spares().has_surplus()) [[unlikely]]
        destroy_surplus();
    }
    section(const section&) = delete;
    section& operator=(const section&) = delete;

    stream_ordered_heap* operator->() const noexcept { return &heap_.heap_; }
    void unlock() { lock_.unlock(); }
    void lock() {
      lock_.lock();
      heap_.heap_.collect_last_freed();
    }

   private:
    void destroy_surplus() noexcept;

    shared_heap& heap_;
    std::unique_lock<object_mutex> lock_;
  };

  explicit shared_heap(int device) : device_(device) {}

  int device() const noexcept { return device_; }

  /// By themselves.
  front_caches& caches() noexcept { return heap_.caches(); }
  const front_caches& caches() const noexcept { return heap_.caches(); }

  /// The heap for looking at it, while `use(heap)` runs.
  template <class Use>
  decltype(auto) look(Use&& use) const {
    const std::lock_guard lock(mutex_);
    heap_.collect_last_freed();
    return use(std::as_const(heap_));
  }

  /// So large is the pool now, and pages are scarce in it or not.
  void be_of(std::size_t cache_bytes, bool is_tight) noexcept {
    heap_.caches().set_budget(is_closed_.load(std::memory_order_relaxed) ? 0 : cache_bytes);
    heap_.be_tight(is_tight);
  }
  bool is_tight() const noexcept { return heap_.is_tight(); }

  // Who a stream is.

  /// Makes the heap know the stream. One that it does not know is looked at first, with the lock released; throws if it
  /// is another device's.
  void meet(stream_ref stream, stream_id id, section& here);

  /// The same for a free: in whose order memory is freed. That is `stream`, or, where it is another device's, a stream
  /// of this device that waits for it, or `orphans` where the driver would not tell about it.
  std::pair<stream_ref, stream_id> meet_freeing(stream_ref stream, stream_id id, section& here);

  // The steps of an allocation that the heap alone serves; null where there is nothing.

  /// What the stream may use at once, or, where it `may_borrow`, what another one has freed, after a wait on the
  /// device. Says in the request whether the stream may wait at all; or, with nothing done, that the pool is scattered.
  void* take_or_borrow(request& wanted, bool may_borrow);
  void* take(const request& wanted);
  void* borrow(request& wanted);
  /// What has become ready meanwhile: asks the events.
  void* take_settled(const request& wanted);
  /// Every free block of the pool, after one event that covers all of them.
  void* reclaim(const request& wanted);

  /// Whether nothing is in use or pinned, and what is free is not one block of the stream with all `bytes` of the
  /// request.
  bool is_scattered(const request& whole);

  // Pauses.

  /// From close() to open() nothing is allocated or pinned. The caches have no room from close() to the next be_of()
  /// after open(). Under the growth's lock, as be_of().
  void close() noexcept;
  void open() noexcept;

  // Marks.

  void place_mark(stream_ref stream, stream_id id, due_mark due) noexcept;
  /// One event over the context for all that is free. Not beside a capture, which it would invalidate.
  void mark_all();
  /// Passes the blocks whose events are complete to everybody; those of `but` stay its own, joined with one another.
  void settle(std::optional<stream_id> but = {});
  /// Passes the blocks that no mark covers yet to everybody, if the device has done all that it was given: a pool that
  /// has met only one stream has no marks at all. Returns what is not everybody's yet.
  pending settle_unmarked();
  /// Passes the stream's own of these blocks to everybody if its work is done, which an event shows.
  bool settle_own(stream_ref stream, stream_id id, std::vector<claim>& blocks);
  /// Passes all free blocks to everybody, after the host has waited for the work that may use them. False, and nothing
  /// was waited for, beside a capture.
  bool settle_after_all_work();
  void make_ready(const std::vector<claim>& settled);

  // Captures.

  /// Takes back what graphs used that are gone.
  void end_captures() noexcept {
    if (is_graph_gone_->load(std::memory_order_acquire)) [[unlikely]]
      take_back_captured();
  }

 private:
  /// While it lives, nobody takes from the heap but its thread by claims. Under the growth's lock.
  class hold {
   public:
    explicit hold(shared_heap& heap);
    ~hold();
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;

   private:
    shared_heap& heap_;
  };

  /// What the memory of a capture waits for before it is taken back.
  struct captured {
    std::vector<std::shared_ptr<const graph_lifetime>> graphs;
    std::shared_ptr<const graph_pool> pool;  // null: the graph's own memory

    bool is_over() const noexcept;  // all graphs that use it are gone
  };
  using captures = std::unordered_map<stream_id, captured>;

  bool is_scattered(section& here, stream_id id, std::size_t held);
  void meet_capture(stream_ref stream, stream_id id, section& here);
  captures::iterator find_earlier(stream_id id, const graph_pool& pool);
  void continue_capture(captures::iterator earlier, stream_id id, std::shared_ptr<const graph_lifetime> lifetime,
                        section& here);
  std::optional<int> device_or_report(stream_ref stream) const noexcept;
  void thin_out(stream_id spared) noexcept;
  void* wait_for(request& wanted, stream_ordered_heap::borrowed found);
  void* take_claims(const request& wanted, const std::vector<claim>& claims);
  std::shared_ptr<event> record_or_report(stream_ref stream, std::shared_ptr<event> reused) const noexcept;
  void take_back_captured() noexcept;

  const int device_;
  mutable object_mutex mutex_;        // guards what follows, but for the caches
  mutable stream_ordered_heap heap_;  // looking at it frees what was set aside
  captures captures_;
  bool has_unmarked_orphans_ = false;
  std::atomic<bool> is_closed_{false};
  const std::shared_ptr<std::atomic<bool>> is_graph_gone_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace cenote::inline v1::pool
