// A pool over any upstream: takes memory in large chunks and hands it out in blocks. In the common case the driver is
// asked for no more than who the stream is (stream_id.hpp), and for nothing at all on the legacy default stream.
//
// How it works. What a thread frees on a stream goes to a small cache of the two (front_caches), and what they ask for
// comes from there if a block of that size lies in it: no lock that others hold, no event. Behind the caches the
// bookkeeping is a stream_ordered_heap: every free block belongs to the stream that it was freed on, or to `ready`,
// whose blocks any stream may use at once. allocate takes, in this order:
//
//   0. a block of exactly the size that this thread has freed on this stream
//   1. a block freed on its own stream
//   2. a ready block, if that is smaller          (where there is neither, step 1 again, after what the stream's caches
//                                                 hold is in the heap)
//   3. a block of another stream whose free an event covers: the device waits for the event,
//      unless it did before
//   4. what has become ready meanwhile           (asks the events; joins blocks across streams)
//   5. a new chunk from the upstream             (outside the lock that others need; after step 6 where most of the
//                                                 pool is free, or much of it lies in caches)
//   6. any free block at all: one event over the context covers every stream, also those that are gone
//   7. a new chunk, after chunks that are wholly free have been given back
//
// and only then is memory out. What a cache has no room for is freed to the heap: it returns to its stream and is
// merged with its neighbours; once for many such frees an event is recorded (stream_timelines), and none at all while
// the pool has met only one stream. After a stream went without what others had freed, each free has an event of its
// own for a while. Step 6 and trim begin with emptying all caches. What streams have left that came and went by the
// thousand is marked and settled as new ones are met (thin_out).
//
// While a stream is being captured into a graph, its allocations come from steps 1, 2, 4, 5 and 7. The graph will use
// the addresses whenever it is launched, so that such a block belongs to that branch of that capture for ever; if any
// other stream frees it, it is retired. Over virtual memory they come from pages of the capture's own, and are taken
// back when the graph is gone (graph_lifetime).
//
// Over virtual memory (virtual_memory_resource) the pool has one range of addresses instead of chunks, and maps pages
// under it itself (paged_range, mapped_pages). It holds nothing before it is used. After step 4:
//
//   5. new pages, as long as no more than a tenth above the most that was in use is held   (no wait, no move)
//   6. what has become ready on any stream; a block of another stream, for which the device waits
//   7. pages that are wholly free on this stream or ready, brought to where they are needed; then those of all streams,
//      for which the device waits
//   8. new pages up to the maximum
//   9. the host waits for all work, and large pages are exchanged for small ones
//
// A page that moves is mapped at its new address at once, and unmapped at the old one by a later call, once the work
// that used it there is done. Near the maximum, blocks of a page and more are placed where they touch the fewest pages,
// caches are smaller, and where nothing is in use the pages are brought together (make_whole).
//
// A pin keeps what lies under a block where it is, whoever uses the block: no page of it is moved, exchanged or given
// back, and no chunk (pinned_blocks).
//
// Invariants: those of stream_ordered_heap, and of chunk_source or mapped_pages.
//
// Threads: `mutex_` guards the heap; no driver call and no upstream call is made under it. The caches have locks of
// their own, taken after it. `growth_` lets one thread at a time ask the upstream, so that a burst does not grow the
// pool twice. Cost: O(1) for 0, 1 and 2, O(streams) for 3. The host waits in step 6 on a driver before 12.5, and where
// the upstream does.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cenote/driver/graph_lifetime.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/pool/chunk_source.hpp"
#include "cenote/pool/mapped_pages.hpp"
#include "cenote/pool/pool_counters.hpp"
#include "cenote/pool/pool_pin.hpp"
#include "cenote/pool/stream_ordered_heap.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class pool_memory_resource final : public memory_resource {
 public:
  /// Sizes in bytes, multiples of 256; std::logic_error if they are not, or if `initial` is above `maximum`.
  /// Without `initial` the pool starts with half of the device's free memory, and over virtual memory with nothing;
  /// without `maximum` it grows while the upstream gives.
  explicit pool_memory_resource(std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> initial = {},
                                std::optional<std::size_t> maximum = {});
  ~pool_memory_resource() override;

  /// Bytes taken from the upstream.
  std::size_t pool_size() const;
  pool_counters counters() const;

  /// From now on the pool grows by `bytes` at once, or by what is asked for if that is more.
  void grow_in_steps_of(std::size_t bytes);

  /// Every block, one a line, in order of address: what is in use and how the free memory lies between. What lies in a
  /// thread's cache is set aside: it is not yet joined with what is free beside it.
  std::string map() const;

  /// Pins the memory under a block that is in use: until the last pin is taken back its pages are neither moved nor
  /// exchanged nor given back, and neither is its chunk over another upstream. Pins are counted. The block may be freed
  /// meanwhile, and its bytes used by others as ever. std::invalid_argument if no block in use starts at `pointer`.
  void pin(const void* pointer, pin_kind kind);

  /// Takes one pin back, by the address that was pinned, whether the block is in use or not. std::invalid_argument if
  /// nothing is pinned there as that kind.
  void unpin(const void* pointer, pin_kind kind);

  /// All pins, in order of address.
  std::vector<pool_pin> pins() const;

  std::string kind() const override { return "pool"; }
  std::string specification() const override;
  std::shared_ptr<memory_resource> upstream() const override { return chunks_.upstream(); }
  bool is_stream_ordered() const noexcept override { return true; }
  memory_state state() const override;

  /// state() without what only the upstream knows, and without asking it.
  memory_state own_state() const;

  /// Gives back chunks, or pages, that are wholly free and whose work is done. The rest goes back once its work is
  /// done, at the next call that the caches do not serve (pages), or that asks the upstream (chunks). Beside a capture
  /// (capture.hpp) only what events cover already is known to be done, and `wait` waits for nothing.
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override;
  void check() const override;

 private:
  using due_mark = stream_ordered_heap::due_mark;
  using borrowed = stream_ordered_heap::borrowed;
  using claim = stream_ordered_heap::claim;

  struct request : stream_ordered_heap::request {
    stream_ref stream;
    bool may_wait = true;  // false for a stream in a capture, or one that waiting would drag into one
    mutable std::exception_ptr refusal = nullptr;  // what the upstream threw when it had no memory, if it threw
  };

  /// Who a stream is, or who it was when the thread met it: it may be gone, and its handle another's.
  struct sighting {
    stream_id id;
    bool is_certain;
  };

  /// Free blocks that work may still use, and an event behind that work: null if there was none to be had.
  struct pending {
    std::vector<claim> blocks;
    std::shared_ptr<event> done = nullptr;
  };

  /// A trim that could not give back all, as work was pending.
  struct unfinished_trim {
    std::size_t keep_bytes;
    pending left;
  };

  /// The lock, while it lives; behind it, the events are destroyed that nobody needs any more.
  class section {
   public:
    explicit section(pool_memory_resource& pool) : pool_(pool), lock_(pool.mutex_) {}
    ~section();
    section(const section&) = delete;
    section& operator=(const section&) = delete;

    void unlock() { lock_.unlock(); }
    void lock() { lock_.lock(); }

   private:
    pool_memory_resource& pool_;
    std::unique_lock<object_mutex> lock_;
  };

  /// While it lives, nobody takes from the heap but its thread by claims. Under growth_.
  class hold {
   public:
    explicit hold(pool_memory_resource& pool);
    ~hold();
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;

   private:
    pool_memory_resource& pool_;
  };

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  bool do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  sighting recognise(stream_ref stream) const;
  sighting recognise_or_report(stream_ref stream) const noexcept;
  stream_id identify_freeing(stream_ref stream) const;
  stream_id identify_or_report(stream_ref stream) const noexcept;
  void give_to_heap(stream_ref stream, stream_id id, void* pointer, std::size_t said) noexcept;
  inline void compare_sizes(const void* pointer, std::size_t said, std::size_t asked) noexcept;
  void give_spilled(stream_ref stream, sighting seen, block_index spilled) noexcept;

  void take_first_chunks(std::size_t bytes);
  void take_first_chunk(std::size_t bytes);
  void give_back_first_chunks() noexcept;

  // The steps of allocate; null where a step has nothing to give.
  void* take_from_heap(request wanted);
  void* take_without_wait(const request& wanted);
  void* wait_for(request& wanted, borrowed found);
  void* take_settled(const request& wanted);
  void* grow(const request& wanted);
  void* reclaim(const request& wanted);
  void* take_claims(const request& wanted, const std::vector<claim>& claims, std::size_t waits);
  void* make_room_and_grow(const request& wanted);

  void meet(stream_ref stream, stream_id id, section& here);
  std::pair<stream_ref, stream_id> stand_in(stream_ref stream, stream_id id, section& here);
  std::optional<int> device_or_report(stream_ref stream) const noexcept;
  stream_id meet_or_report(stream_ref stream, stream_id id, section& here);
  bool has_plenty(const request& wanted) const;
  void* add_chunk_and_take(const request& wanted, chunk fresh);
  void give_up_chunk(const request& wanted, chunk fresh) noexcept;
  static std::size_t smallest_chunk(const request& wanted);
  std::size_t release_chunks(stream_ref stream, std::optional<stream_id> of, std::size_t keep_bytes);
  void size_caches();
  bool is_tight() const;

  std::shared_ptr<event> record_or_report(stream_ref stream, std::shared_ptr<event> reused) const noexcept;
  void place_mark(stream_ref stream, stream_id id, due_mark due) noexcept;
  void settle(std::optional<stream_id> but = {});
  pending settle_unmarked();
  void settle_after_all_work();
  std::size_t give_back(std::size_t keep_bytes);
  void finish_trim(stream_ref stream, stream_id id) noexcept;
  void meet_capture(stream_ref stream, stream_id id, section& here);
  void end_captures() noexcept;
  bool settle_own(stream_ref stream, stream_id id, std::vector<claim>& blocks);
  void make_ready(const std::vector<claim>& settled);
  std::optional<unfinished_trim> take_unfinished_trim();
  void keep_unfinished_trim(unfinished_trim rest);
  void thin_out(stream_id spared) noexcept;
  void mark_all();
  static bool order_legacy_stream_after_all_work(int device);
  void say(const char* what, std::size_t bytes) const noexcept;

  // Pages, where the upstream is virtual memory.
  std::size_t held() const { return pages_ ? pages_->held() : chunks_.held(); }
  std::size_t bound(const request& wanted);
  void* take_from_pages(request& wanted);
  void* bring_pages(const request& wanted, std::size_t bound, bool may_move, bool may_break = false);
  void* map_planned(const request& wanted, const paged_range::plan& planned);
  bool bring_all(const paged_range::plan& planned, stream_ref stream);
  void* wait_and_break(request& wanted);
  void* borrow(request& wanted);
  void make_whole(request wanted);
  bool memory_is_scattered(const request& wanted);
  void reap_pages();
  void bring_first_pages(std::size_t bytes);
  void end_of_pages();
  std::size_t trim_pages(std::size_t keep_bytes);

  chunk_source chunks_;                  // by itself
  std::unique_ptr<mapped_pages> pages_;  // null over another upstream; guarded by growth_
  std::size_t peak_ = 0;                 // of the bytes in use, where pages were wanted; guarded by growth_
  std::optional<std::size_t> initial_;
  std::atomic<bool> has_compared_in_vain_{false};  // a free came with a wrong size, which is reported once

  // Taken in this order: growth_, then mutex_. The upstream is called under growth_, and what it calls of the program's
  // may allocate from this very pool: to the outer growth that is as if another thread had grown the pool.
  mutable object_recursive_mutex growth_;
  mutable object_mutex mutex_;

  stream_ordered_heap memory_;  // guarded by mutex_; its caches are by themselves
  std::unordered_map<stream_id, std::shared_ptr<const graph_lifetime>> captures_;  // guarded by mutex_
  bool has_unmarked_orphans_ = false;                                              // guarded by mutex_
  const std::shared_ptr<std::atomic<bool>> is_graph_gone_ = std::make_shared<std::atomic<bool>>(false);
  std::optional<unfinished_trim> trim_;           // guarded by mutex_
  std::atomic<bool> has_unfinished_trim_{false};  // whether there is one
  front_caches& caches_ = memory_.caches();
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
