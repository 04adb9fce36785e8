#include "cenote/pool/page_backing.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/ladder.hpp"
#include "cenote/pool/parking.hpp"

namespace cenote::inline v1::pool {
namespace {

// The steps, as errors name them.
constexpr const char* waiting = "waiting for the device's work";
constexpr const char* in_a_capture = "skipped: the stream is being captured";
constexpr const char* beside_a_capture = "skipped: a stream of the device is being captured";

/// What one front cache may hold: a sixty-fourth of the pool, but little where pages are scarce, as what lies in caches
/// keeps whole pages from other uses; and enough for small blocks where the pool is small.
constexpr std::size_t shares_of_a_roomy_cache = 64;
constexpr std::size_t shares_of_a_tight_cache = 4096;
constexpr std::size_t least_cache = 512 * KiB;

/// The pool holds up to a tenth more than the most that was in use, and a small one 240 MiB more, before it moves pages
/// instead of making new ones. Recorded training steps moved none at that bound.
constexpr std::size_t shares_to_spare = 10;
constexpr std::size_t least_to_spare = 240 * MiB;

/// The same where memory is worth more than moves.
constexpr std::size_t shares_to_spare_if_sparing = 33;
constexpr std::size_t least_to_spare_if_sparing = 16 * MiB;

/// In a pool of at most so many bytes, a thousand of the smallest pages, a single page is worth a search, or a wait of
/// a stream for another's piece of a page.
constexpr std::size_t few_pages = 1024 * page_map::slot_bytes;

/// Nothing is allocated from the heap while it lives, nor later if it `stays`.
class closed_heap {
 public:
  explicit closed_heap(shared_heap& heap) noexcept : heap_(heap) { heap_.close(); }
  ~closed_heap() {
    if (!stays_) heap_.open();
  }
  closed_heap(const closed_heap&) = delete;
  closed_heap& operator=(const closed_heap&) = delete;

  void stay() noexcept { stays_ = true; }

 private:
  shared_heap& heap_;
  bool stays_ = false;
};

std::string describe_pin(const pool_pin& pin) {
  return std::to_string(pin.bytes) + " bytes at " + format_address(pin.address) + " (" + spell_pin_kind(pin.kind) + ")";
}

}  // namespace

page_backing::page_backing(shared_heap& heap, std::shared_ptr<memory_resource> upstream,
                           std::optional<std::size_t> maximum, const page_properties& properties,
                           const peer_devices& peers, bool is_sparing)
    : backing(heap, std::move(upstream), maximum),
      is_sparing_(is_sparing),
      pages_(std::make_unique<mapped_pages>(properties, peers, maximum)),
      pause_(heap) {
  shared_heap::section(heap)->be_a_range(pages_->base(), pages_->range_bytes());
  place_.emplace(heap, *this);
}

void page_backing::prepare(request& wanted) const {
  if (!wanted.id.is_capturing()) wanted.held = held();
  const bool are_few = *maximum() < few_pages;
  wanted.is_planned = are_few && wanted.bytes >= page_map::slot_bytes;
  wanted.is_sparing = are_few && wanted.bytes < page_map::slot_bytes;
}

void* page_backing::bring(request& wanted) {
  require_running();
  reap();
  const std::size_t spared = bound(wanted);
  if (wanted.is_planned) {
    if (void* p = bring_pages(wanted, max_allocation, {.may_move = true})) return p;
    static_cast<void>(heap_.reclaim(wanted));
    if (void* p = bring_pages(wanted, max_allocation, {.may_move = true})) return p;
    wanted.is_planned = false;
  }
  if (void* p = bring_pages(wanted, spared, {})) return p;
  if (wanted.may_wait) {
    if (!is_capture_underway(device())) heap_.mark_all();  // what is done is ready, and what is not can be waited for
    if (heap_.is_tight()) {
      const shared_heap::section here(heap_);
      here->mark_at_once();
    }
    if (void* p = heap_.take_settled(wanted)) return p;
    if (void* p = heap_.borrow(wanted)) return p;
  }
  ladder::note("blocks of other streams", std::nullopt, wanted.may_wait ? "" : in_a_capture);
  if (void* p = bring_pages(wanted, spared, {.may_move = true})) return p;
  if (wanted.may_wait) {
    if (void* p = heap_.reclaim(wanted)) return p;
    if (void* p = bring_pages(wanted, spared, {.may_move = true})) return p;
  }
  if (void* p = bring_pages(wanted, max_allocation, {.may_move = true})) return p;
  ladder::note("free pages brought together");
  if (void* p = bring_of_others(wanted, {.may_move = true})) return p;
  return wait_and_break(wanted);
}

/// Where the maximum has room and the device has none: makes new pages of what lies idle in other pools.
void* page_backing::bring_of_others(const request& wanted, means by) {
  const std::size_t needed = std::min(pages_->room(max_allocation), align_up(wanted.bytes, page_map::slot_bytes));
  const bool may_wait = by.may_break;  // both are for the last step
  const std::size_t given_back = page_pools::give_back(*this, needed, may_wait);
  ladder::note("idle pages of other pools", given_back);
  if (given_back == 0) return nullptr;
  return bring_pages(wanted, max_allocation, by);
}

/// Returns how many bytes the pool may hold before it moves pages instead of making new ones: somewhat more than the
/// most that was in use so far.
std::size_t page_backing::bound(const request& wanted) {
  const shared_heap::section here(heap_);
  peak_ = std::max(peak_, here->bytes_in_use() + wanted.bytes);
  if (is_sparing_) return peak_ + std::max(peak_ / shares_to_spare_if_sparing, least_to_spare_if_sparing);
  return peak_ + std::max(peak_ / shares_to_spare, least_to_spare);
}

/// Near the limit, brings all pages together where nothing is in use: then the same sequence of calls finds the same
/// memory each time, and what fitted once fits again.
void page_backing::make_whole(const request& wanted) {
  if (!accepts_work(wanted.stream, device())) return;
  const relaxed_capture_scope relaxed;
  const std::lock_guard one_at_a_time(growth());
  if (pause_.is_paused()) return;
  reap();
  const request whole{wanted.stream, wanted.id, held(), default_alignment};
  if (!heap_.is_scattered(whole)) return;
  void* all = heap_.reclaim(whole);
  if (all == nullptr) all = bring_pages(whole, 0, {.may_move = true});
  if (all == nullptr) return;
  std::optional<stream_ordered_heap::freed_block> freed;
  {
    const shared_heap::section here(heap_);
    freed = here->free(wanted.id, all);
  }
  if (freed && freed->due) heap_.place_mark(wanted.stream, wanted.id, *std::move(freed->due));
}

/// Maps pages under a run of addresses: new ones as long as no more than `bound` is held, else pages that are free
/// elsewhere; null where there are not enough.
void* page_backing::bring_pages(const request& wanted, std::size_t bound, means by) {
  paged_range::request asked{};
  asked.may_create = pages_->room(bound);
  asked.page_bytes = pages_->page_bytes_to_grow(wanted.bytes);
  asked.may_move_ready = by.may_move;
  asked.may_move_own = by.may_move && wanted.may_wait;
  asked.may_break = by.may_break;
  asked.is_tight = heap_.is_tight();
  std::optional<paged_range::plan> planned;
  {
    const shared_heap::section here(heap_);
    planned = here->plan_pages(wanted, asked);
  }
  return planned ? map_planned(wanted, *planned) : nullptr;
}

/// Makes the driver's calls for a plan; null, and all is as before, where memory runs out among them.
void* page_backing::map_planned(const request& wanted, const paged_range::plan& planned) {
  std::shared_ptr<event> used;  // null where nobody uses the pages at their old addresses any more
  try {
    pages_->reserve_retired(planned.fillings.size() + planned.broken.size());
    if (planned.moves_own) used = event::record(wanted.stream, device());
    for (const page& each : planned.broken) pages_->retire(each, nullptr);
    if (!planned.broken.empty()) reap();
  } catch (...) {
    const shared_heap::section here(heap_);
    here->range().cancel(planned);
    throw;
  }
  if (!map_all(planned, wanted.stream)) return nullptr;
  std::size_t created = 0;
  for (const paged_range::filling& each : planned.fillings) {
    if (each.from == nullptr) created += each.to.bytes;
    if (each.from != nullptr) pages_->retire({each.from, each.to.bytes}, used);
  }
  say_grown(created);
  size_changed();
  const shared_heap::section here(heap_);
  return here->complete(wanted, planned);
}

/// False, and the plan is cancelled, where memory ran out.
bool page_backing::map_all(const paged_range::plan& planned, stream_ref stream) {
  std::size_t brought = 0;
  const auto take_back = [&] {
    for (std::size_t i = 0; i < brought; ++i) pages_->undo(planned.fillings[i]);
    const shared_heap::section here(heap_);
    here->range().cancel(planned);
  };
  try {
    for (const paged_range::filling& each : planned.fillings) {
      if (!pages_->bring(each, stream)) {
        take_back();
        return false;
      }
      ++brought;
    }
    return true;
  } catch (...) {
    take_back();
    throw;
  }
}

/// The last step: waits, on the host, for all work of the device, after which each page that is free is everybody's,
/// and may be exchanged for smaller ones.
void* page_backing::wait_and_break(request& wanted) {
  const bool has_waited = wanted.may_wait && heap_.settle_after_all_work();
  ladder::note(waiting, std::nullopt, !wanted.may_wait ? in_a_capture : !has_waited ? beside_a_capture : "");
  if (!has_waited) return nullptr;
  reap();
  if (void* p = heap_.take(wanted)) return p;
  constexpr means all{.may_move = true, .may_break = true};
  if (void* p = bring_pages(wanted, max_allocation, all)) return p;
  return bring_of_others(wanted, all);
}

/// Unmaps the old addresses of pages that have moved, as far as the work that used them is done.
void page_backing::reap() {
  const std::vector<page> gone = pages_->reap();
  if (gone.empty()) return;
  const shared_heap::section here(heap_);
  for (const page& each : gone) here->range().was_unmapped(each);
}

std::size_t page_backing::give_back(std::size_t keep_bytes) {
  const std::lock_guard one_at_a_time(growth());
  if (pause_.is_paused()) return 0;
  const std::size_t before = held();
  reap();
  std::vector<page> free;
  {
    const shared_heap::section here(heap_);
    free = here->take_ready_pages_out(held() - std::min(held(), keep_bytes));
  }
  pages_->reserve_retired(free.size());
  for (const page& each : free) pages_->retire(each, nullptr);
  reap();
  size_changed();
  const std::size_t given_back = before - held();
  say_given_back(given_back);
  return given_back;
}

/// Brings whole pages at the beginning, for everybody: no more than were asked for, which may be all that there is.
void page_backing::begin(std::size_t bytes) {
  const std::size_t whole = align_down(bytes, page_map::slot_bytes);
  if (whole == 0) return size_changed();
  paged_range::request asked{};
  asked.bytes = whole;
  asked.alignment = default_alignment;
  asked.may_create = whole;
  asked.page_bytes = pages_->page_bytes_to_grow(whole);
  std::optional<paged_range::plan> planned;
  {
    const shared_heap::section here(heap_);
    planned = here->plan_ready_pages(asked);
  }
  if (!planned || !map_all(*planned, {})) throw out_of_memory(describe(*upstream()), bytes, upstream()->state());
  say_grown(whole);
  const shared_heap::section here(heap_);
  here->complete_ready(*planned);
  size_changed();
}

/// Unmaps and gives back all pages, once all work of the device is done.
void page_backing::end() {
  place_.reset();
  do_what_was_put_off(device());
  auto unmap = [pages = std::shared_ptr<mapped_pages>(std::move(pages_)), device = device()]() mutable {
    synchronize_device(device);
    pages.reset();
    return true;
  };
  if (is_known_to_be_without_captures()) {
    unmap();
  } else {
    do_after_captures(device(), unmap);
  }
}

void page_backing::require_running() const {
  if (!pause_.is_paused()) return;
  throw std::runtime_error("the pool on device " + std::to_string(device()) +
                           " is paused: nothing is allocated from it before it is resumed");
}

/// Throws if other processes or a network card know a page. A graph does not: its memory may get other pages.
void page_backing::require_unknown_to_others() {
  constexpr std::size_t most_to_tell = 8;
  std::string told;
  std::size_t known = 0;
  for (const pool_pin& each : heap_.look([](const stream_ordered_heap& heap) { return heap.pins().list(); })) {
    if (each.kind == pin_kind::captured) continue;
    if (++known <= most_to_tell) told += (told.empty() ? "" : ", ") + describe_pin(each);
  }
  if (known == 0) return;
  if (known > most_to_tell) told += " and " + std::to_string(known - most_to_tell) + " more";
  throw std::runtime_error("a pool cannot be paused while others know its memory: " + told);
}

/// Other devices may have been given work that uses this one's memory.
void page_backing::wait_for_all_devices() {
  bool has_waited = true;
  for (int other = 0; other < device_count(); ++other) {
    if (other != device() && is_in_use(other)) has_waited = synchronize_beside_captures(other) && has_waited;
  }
  has_waited = has_waited && heap_.settle_after_all_work();
  if (!has_waited) throw std::runtime_error("a pool cannot be paused while work is being captured into a graph");
}

std::size_t page_backing::pause(const std::string& keep) {
  const std::lock_guard one_at_a_time(growth());
  const std::size_t idle = hide(keep);
  return idle + release();
}

std::size_t page_backing::hide(const std::string& keep) {
  const std::lock_guard one_at_a_time(growth());
  if (pause_.is_paused()) {
    throw std::runtime_error("the pool on device " + std::to_string(device()) + " is paused already");
  }
  std::unique_ptr<parking> where = make_parking(keep, device());
  const relaxed_capture_scope relaxed;
  const std::size_t before = held();
  try {
    closed_heap closed(heap_);
    require_unknown_to_others();
    heap_.end_captures();
    wait_for_all_devices();
    give_back(0);
    if (pages_->has_retired()) throw std::runtime_error("a pool cannot be paused: some pages cannot be unmapped yet");
    try {
      pause_.hide(*pages_, std::move(where));
    } catch (...) {
      if (pause_.is_paused()) closed.stay();
      throw;
    }
    closed.stay();
  } catch (...) {
    if (!pause_.is_paused()) size_changed();
    throw;
  }
  return before - held();
}

std::size_t page_backing::release() noexcept {
  const std::size_t before = held();
  pause_.release(*pages_);
  const std::size_t given_back = before - held();
  say_given_back(given_back);
  return given_back;
}

bool page_backing::read_paused(void* to, const void* from, std::size_t bytes) {
  const auto* const first = static_cast<const std::byte*>(from);
  const bool is_of_it = first >= pages_->base() && first < pages_->base() + pages_->range_bytes();
  if (!is_of_it || !pause_.is_paused()) return false;  // without waiting for whoever holds the lock
  const std::lock_guard one_at_a_time(growth());
  if (!pause_.is_paused()) return false;
  const relaxed_capture_scope relaxed;
  return pause_.read(static_cast<std::byte*>(to), first, bytes);
}

std::size_t page_backing::resume() {
  const std::lock_guard one_at_a_time(growth());
  if (!pause_.is_paused()) {
    throw std::runtime_error("the pool on device " + std::to_string(device()) + " is not paused");
  }
  const relaxed_capture_scope relaxed;
  const std::size_t before = held();
  pause_.resume(*pages_, [this](std::size_t bytes) {
    const std::size_t idle = page_pools::give_back(*this, bytes, false);
    return idle < bytes ? idle + page_pools::give_back(*this, bytes - idle, true) : idle;
  });
  heap_.open();
  size_changed();
  const std::size_t brought = held() - std::min(held(), before);
  say_grown(brought);
  reap();
  return brought;
}

void page_backing::check() const {
  const std::size_t before = held();
  const std::size_t with_pages = heap_.look([](const stream_ordered_heap& heap) {
    heap.check();
    return heap.chunk_bytes();
  });
  require_bounds(before, with_pages - std::min(with_pages, pause_.bytes()));
}

/// Pages are scarce where more than nine tenths of the most that the pool may hold is held.
void page_backing::size_changed() {
  const bool is_tight = maximum() && held() > *maximum() / 10 * 9;
  heap_.be_of(std::max(held() / (is_tight ? shares_of_a_tight_cache : shares_of_a_roomy_cache), least_cache), is_tight);
}

}  // namespace cenote::inline v1::pool
