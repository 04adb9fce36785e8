#include "cenote/resources/pool_memory_resource.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/nvtx.hpp"
#include "cenote/driver/own_streams.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/process.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"

namespace cenote::inline v1 {
namespace {

/// A pool that is this many times as large as what is in use joins its blocks, and reclaims, before it grows. Of a
/// recorded workload of five streams it held 4.9 times the peak without, and 2.5 times with it.
constexpr std::size_t plenty = 2;

/// What one front cache may hold: a sixty-fourth of the pool. It is not joined with its neighbours meanwhile, and no
/// other stream sees it.
constexpr std::size_t shares_of_a_cache = 64;

/// Over pages: as much, but little where pages are scarce, as what lies in caches keeps whole pages from other uses;
/// and enough for small blocks where the pool is small.
constexpr std::size_t shares_of_a_tight_cache = 4096;
constexpr std::size_t least_cache = 512 * KiB;

/// A pool whose front caches hold more than an eighth of it together reclaims that before it grows: streams come and
/// go, and what lies in the caches of one that is gone is nobody's.
constexpr std::size_t shares_worth_a_reclaim = 8;

/// A pool over virtual memory holds up to a tenth more than the most that was in use, and a small one 240 MiB more,
/// before it moves pages instead of making new ones. Recorded training steps moved none at that bound.
constexpr std::size_t shares_to_spare = 10;
constexpr std::size_t least_to_spare = 240 * MiB;

/// In a pool of at most so many bytes, a thousand of the smallest pages, a single page is worth a search.
constexpr std::size_t few_pages = 1024 * page_map::slot_bytes;

constexpr stream_id orphans = stream_ordered_heap::orphans;
constexpr const char* freed_on_nobodys_stream =
    "a block was freed to a pool on a stream that cannot be asked; it is not used again before a wait for all work of "
    "the device: ";

void check_pool_size(const char* which, std::optional<std::size_t> bytes) {
  if (bytes && *bytes % block_granularity != 0) {
    throw std::logic_error(std::string(which) + " pool size must be a multiple of " +
                           std::to_string(block_granularity) + " bytes, not " + std::to_string(*bytes));
  }
}

bool is_known_to_be_without_captures(int device) noexcept {
  try {
    return !is_capture_underway(device);
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

/// Returns how many bytes of a block for this request were not asked for.
std::uint8_t unasked_of(std::size_t bytes) noexcept {
  static_assert(block_granularity == 256, "a block has a byte for it");
  return static_cast<std::uint8_t>((std::size_t{0} - bytes) % block_granularity);
}

/// Asks a few times: an event behind an idle stream takes a moment to complete.
bool is_complete_at_once(const event& recorded) {
  for (int times_to_ask = 8; times_to_ask > 0; --times_to_ask) {
    if (recorded.is_complete()) return true;
  }
  return false;
}

std::size_t half_of_free_memory(int device) {
  return align_down(device_memory_info(device).free_bytes / 2, block_granularity);
}

}  // namespace

pool_memory_resource::pool_memory_resource(std::shared_ptr<memory_resource> upstream,
                                           std::optional<std::size_t> initial, std::optional<std::size_t> maximum)
    : memory_resource(upstream, "pool"), chunks_(std::move(upstream), maximum), initial_(initial) {
  check_pool_size("initial", initial);
  check_pool_size("maximum", maximum);
  const auto* const over = dynamic_cast<const virtual_memory_resource*>(this->upstream().get());
  if (over != nullptr && !initial) initial = 0;  // it is there as soon as it is needed
  if (over != nullptr && over->has_pages()) {
    pages_ =
        std::make_unique<mapped_pages>(page_properties{device(), over->settings().handles, over->settings().for_rdma},
                                       over->settings().peers, maximum);
    memory_.be_a_range(pages_->base(), pages_->range_bytes());
  }
  std::size_t first = initial ? *initial : half_of_free_memory(device());
  if (!initial && maximum) first = std::min(first, *maximum);
  if (maximum && first > *maximum) {
    throw std::logic_error("Initial pool size exceeds the maximum pool size! (" + format_bytes(first) + " > " +
                           format_bytes(*maximum) + ")");
  }
  take_first_chunks(first);
  size_caches();
}

/// Brings whole pages at the beginning, for everybody: no more than were asked for, which may be all that there is.
void pool_memory_resource::bring_first_pages(std::size_t bytes) {
  const std::size_t whole = align_down(bytes, page_map::slot_bytes);
  if (whole == 0) return;
  paged_range::request asked{};
  asked.bytes = whole;
  asked.alignment = default_alignment;
  asked.may_create = whole;
  asked.page_bytes = mapped_pages::page_bytes_for(whole);
  const auto planned = memory_.plan_ready_pages(asked);
  if (!planned || !bring_all(*planned, {})) throw out_of_memory(describe(*upstream()), bytes, upstream()->state());
  memory_.complete_ready(*planned);
}

/// One chunk, or several where one cannot be so large.
void pool_memory_resource::take_first_chunks(std::size_t bytes) {
  if (pages_) return bring_first_pages(bytes);
  try {
    for (std::size_t left = bytes; left != 0; left -= std::min(left, max_block_bytes))
      take_first_chunk(std::min(left, max_block_bytes));
  } catch (const out_of_memory&) {
    give_back_first_chunks();
    if (bytes <= max_block_bytes) throw;
    throw out_of_memory(describe(*upstream()), bytes, upstream()->state());  // of what was asked for, not of a part
  } catch (...) {
    give_back_first_chunks();
    throw;
  }
}

void pool_memory_resource::give_back_first_chunks() noexcept {
  memory_.for_each_chunk([this](const chunk& c) { upstream()->deallocate_sync(c.base, c.bytes); });
}

void pool_memory_resource::take_first_chunk(std::size_t bytes) {
  const chunk whole = chunks_.take_exactly(bytes);
  try {
    memory_.add_chunk(whole, std::nullopt);
  } catch (...) {
    upstream()->deallocate_sync(whole.base, whole.bytes);
    throw;
  }
}

pool_memory_resource::~pool_memory_resource() {
  if (is_gone()) return;
  if (const std::size_t in_use = memory_.blocks_in_use(); in_use != 0) {
    report_once("a pool is destroyed with blocks still in use: ", in_use, ", together ",
                format_bytes(memory_.bytes_in_use()));
  }
  if (!memory_.pins().is_empty()) {
    report_once("a pool is destroyed, and its memory given back, while blocks are pinned: ",
                memory_.pins().list().size());
  }
  try {
    if (pages_) {
      end_of_pages();
      return;
    }
    if (is_known_to_be_without_captures(device())) {
      do_what_was_put_off(device());
      if (order_legacy_stream_after_all_work(device())) {  // which needs no memory of the host
        memory_.for_each_chunk([this](const chunk& c) { chunks_.give({}, c); });
        return;
      }
    }
    std::vector<chunk> chunks;
    memory_.for_each_chunk([&](const chunk& c) { chunks.push_back(c); });
    do_after_captures(device(), [upstream = this->upstream(), chunks = std::move(chunks)] {
      if (!order_legacy_stream_after_all_work(upstream->device())) return false;
      for (const chunk& c : chunks) upstream->deallocate({}, c.base, c.bytes);
      return true;
    });
  } catch (const std::exception& error) {
    report_once("the memory of a pool is leaked, as its work could not be waited for: ", error.what());
  }
}

/// Unmaps and gives back all pages, once all work of the device is done.
void pool_memory_resource::end_of_pages() {
  do_what_was_put_off(device());
  auto unmap = [pages = std::shared_ptr<mapped_pages>(std::move(pages_)), device = device()]() mutable {
    synchronize_device(device);
    pages.reset();
    return true;
  };
  if (is_known_to_be_without_captures(device())) {
    unmap();
  } else {
    do_after_captures(device(), unmap);
  }
}

/// For the end of the pool. False if there is a capture, which nobody had announced; throws if there is no way: its
/// memory must then be leaked.
bool pool_memory_resource::order_legacy_stream_after_all_work(int device) {
  try {
    wait_for_all_work({}, device);
    return true;
  } catch (const cuda_error& error) {
    if (!has_ended_a_capture(error)) {
      synchronize_device(device);
      return true;
    }
    report_once(error.what());
    return false;
  } catch (const std::bad_alloc&) {  // of the host's memory, for an event
    synchronize_device(device);
    return true;
  }
}

pool_memory_resource::section::~section() {
  if (!lock_.owns_lock() || !pool_.memory_.spares().has_surplus()) return;
  const auto surplus = pool_.memory_.spares().take_surplus();
  lock_.unlock();
}

pool_memory_resource::hold::hold(pool_memory_resource& pool) : pool_(pool) {
  const std::lock_guard lock(pool_.mutex_);
  pool_.memory_.hold();
}

pool_memory_resource::hold::~hold() {
  const std::lock_guard lock(pool_.mutex_);
  pool_.memory_.let_go();
}

void* pool_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const stream_id id = identify(stream, device());
  const std::size_t rounded = align_up(bytes, block_granularity);
  caches_.meet(stream, id);
  if (alignment == default_alignment && caches_.keeps(rounded)) {
    if (void* p = caches_.take(id, rounded, unasked_of(bytes))) return p;
  }
  request wanted{{id, rounded, alignment}, stream};
  wanted.unasked = unasked_of(bytes);
  void* const pointer = take_from_heap(std::move(wanted));
  if (pages_) finish_trim(stream, id);
  return pointer;
}

void* pool_memory_resource::do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  if (alignment != default_alignment || !caches_.keeps(bytes)) return nullptr;
  const stream_id id = identify(stream, device());
  caches_.meet(stream, id);
  return caches_.take(id, align_up(bytes, block_granularity), unasked_of(bytes));
}

bool pool_memory_resource::do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes, std::size_t) {
  if (!caches_.keeps(bytes)) return false;
  const std::size_t asked = caches_.give(recognise(stream).id, pointer, nullptr);
  if (asked == 0) return false;
  compare_sizes(pointer, bytes, asked);
  return true;
}

/// A block is freed with the size that it has, whatever size its free says.
inline void pool_memory_resource::compare_sizes(const void* pointer, std::size_t said, std::size_t asked) noexcept {
  if (said == asked) [[likely]]
    return;
  free_correction::say(pointer, asked);
  if (has_compared_in_vain_.exchange(true, std::memory_order_relaxed)) return;
  report_once("a block of ", asked, " bytes was freed as one of ", said, ": the former are freed");
}

/// Who the stream is, or, where that would have to be asked, who this thread takes it for (front_caches::recognise).
auto pool_memory_resource::recognise(stream_ref stream) const -> sighting {
  if (stream.is_legacy_default()) return {legacy_default_id, true};
  const auto own = own_streams::find(stream.value());
  const auto last = own ? std::optional(stream_id{*own}) : caches_.recognise(stream);
  if (last && !is_capturing(stream, device())) return {*last, own.has_value()};
  return {identify_freeing(stream), true};
}

/// Who frees. A free in a capture that was invalidated is nobody's: no graph will use the block, and all work of the
/// device before it covers it.
stream_id pool_memory_resource::identify_freeing(stream_ref stream) const {
  const stream_id id = identify(stream, device());
  return id.is_nobody() ? orphans : id;
}

void* pool_memory_resource::take_from_heap(request wanted) {
  if (wanted.id.is_nobody()) wanted.id.value = stream_id::first_nobody;  // the heap knows one for each handle
  std::optional<borrowed> found;
  void* pointer = nullptr;
  if (pages_ && is_tight()) make_whole(wanted);
  wanted.is_planned = pages_ && is_tight() && wanted.bytes >= page_map::slot_bytes && *pages_->maximum() < few_pages;
  {
    section here(*this);
    meet(wanted.stream, wanted.id, here);
    pointer = memory_.take(wanted);
    const bool may_borrow = !wanted.id.is_capturing() && !wanted.is_planned && (!pages_ || is_tight());
    if (pointer == nullptr && may_borrow) found = memory_.borrow(wanted);
  }
  if (pointer != nullptr) {
    if (caches_.keeps(wanted.bytes)) caches_.open(wanted.id);
    return pointer;
  }
  if (found) {
    if (void* p = wait_for(wanted, *std::move(found))) return p;
  } else {
    wanted.may_wait = !wanted.id.is_capturing() && accepts_work(wanted.stream, device());
  }

  const relaxed_capture_scope relaxed;
  const within_capture_scope within(wanted.id.is_capturing());
  end_captures();
  if (void* p = take_settled(wanted)) return p;
  if (pages_) return take_from_pages(wanted);

  const std::lock_guard one_at_a_time(growth_);
  finish_trim(wanted.stream, wanted.id);
  wanted.is_thorough = true;
  if (void* p = take_without_wait(wanted)) return p;  // another thread may have grown the pool for both
  if (has_plenty(wanted) || caches_.bytes() > chunks_.held() / shares_worth_a_reclaim) {
    if (void* p = reclaim(wanted)) return p;
  }
  if (void* p = grow(wanted)) return p;
  if (void* p = reclaim(wanted)) return p;
  if (void* p = make_room_and_grow(wanted)) return p;
  if (wanted.refusal) std::rethrow_exception(wanted.refusal);  // it knows more than that there is no memory
  return nullptr;
}

void pool_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t) {
  if (!caches_.keeps(bytes)) return give_to_heap(stream, identify_or_report(stream), pointer, bytes);
  const sighting seen = recognise_or_report(stream);
  block_index spilled = no_block;
  const std::size_t asked = caches_.give(seen.id, pointer, &spilled);
  if (asked == 0) {
    return give_to_heap(stream, seen.is_certain ? seen.id : identify_or_report(stream), pointer, bytes);
  }
  compare_sizes(pointer, bytes, asked);
  if (spilled != no_block) [[unlikely]]
    give_spilled(stream, seen, spilled);
}

// Returned, not assigned inside a try: where the right side throws, g++ 12.2 at -O1 and -O2 assigns all the same.
stream_id pool_memory_resource::identify_or_report(stream_ref stream) const noexcept {
  try {
    return identify_freeing(stream);
  } catch (const std::exception& error) {
    report_once(freed_on_nobodys_stream, error.what());
    return orphans;
  }
}

auto pool_memory_resource::recognise_or_report(stream_ref stream) const noexcept -> sighting {
  try {
    return recognise(stream);
  } catch (const std::exception& error) {
    report_once(freed_on_nobodys_stream, error.what());
    return {orphans, true};
  }
}

void pool_memory_resource::give_to_heap(stream_ref stream, stream_id id, void* pointer, std::size_t said) noexcept {
  try {
    std::optional<stream_ordered_heap::freed_block> freed;
    {
      section here(*this);
      std::tie(stream, id) = stand_in(stream, id, here);
      id = meet_or_report(stream, id, here);
      freed = memory_.free(id, pointer);
    }
    if (!freed) {
      free_correction::say(pointer, 0);
      return report_once(
          "a pointer was freed that the pool did not give out, or that was freed already; it is ignored");
    }
    compare_sizes(pointer, said, freed->asked_bytes);
    if (id != orphans && caches_.keeps(freed->bytes)) caches_.open(id);
    if (freed->due) place_mark(stream, id, *std::move(freed->due));
    if (pages_) finish_trim(stream, id);
    if (!id.is_capturing()) end_captures();
  } catch (const std::exception& error) {
    free_correction::say(pointer, 0);
    report_once("a block is leaked, as freeing it failed: ", error.what());
  }
}

/// Frees what a cache had no room for. The stream of the cache may only have been recognised; one that is gone gets no
/// mark, as no event on the stream that has its handle now would cover its work, and is not taken for that one again.
void pool_memory_resource::give_spilled(stream_ref stream, sighting seen, block_index spilled) noexcept {
  const stream_id id = seen.id;
  const stream_id asked = seen.is_certain ? id : identify_or_report(stream);
  const bool is_itself = asked == id;
  if (!is_itself) caches_.meet(stream, asked);
  try {
    std::optional<due_mark> due;
    {
      const section here(*this);
      due = memory_.free_spilled(id, spilled, is_itself);
    }
    if (due) place_mark(stream, id, *std::move(due));
  } catch (const std::exception& error) {
    report_once("blocks are leaked, as freeing them failed: ", error.what());
  }
}

/// Returns how many bytes the pool may hold before it moves pages instead of making new ones: somewhat more than the
/// most that was in use so far.
std::size_t pool_memory_resource::bound(const request& wanted) {
  const std::lock_guard lock(mutex_);
  peak_ = std::max(peak_, memory_.bytes_in_use() + wanted.bytes);
  return peak_ + std::max(peak_ / shares_to_spare, least_to_spare);
}

/// The steps from 4 on where the pool maps pages itself.
void* pool_memory_resource::take_from_pages(request& wanted) {
  const std::lock_guard one_at_a_time(growth_);
  if (void* p = take_without_wait(wanted)) return p;  // another thread may have brought pages for both
  reap_pages();
  const std::size_t spared = bound(wanted);
  if (wanted.is_planned) {
    if (void* p = bring_pages(wanted, max_allocation, true)) return p;
    static_cast<void>(reclaim(wanted));
    if (void* p = bring_pages(wanted, max_allocation, true)) return p;
    wanted.is_planned = false;
  }
  if (void* p = bring_pages(wanted, spared, false)) return p;
  if (wanted.may_wait) {
    if (!is_capture_underway(device())) mark_all();  // what is done is ready, and what is not can be waited for
    if (is_tight()) {
      const section here(*this);
      memory_.mark_at_once();
    }
    if (void* p = take_settled(wanted)) return p;
    if (void* p = borrow(wanted)) return p;
  }
  if (void* p = bring_pages(wanted, spared, true)) return p;
  if (wanted.may_wait) {
    if (void* p = reclaim(wanted)) return p;
    if (void* p = bring_pages(wanted, spared, true)) return p;
  }
  if (void* p = bring_pages(wanted, max_allocation, true)) return p;
  return wait_and_break(wanted);
}

/// Step 3, where there is something to wait for.
void* pool_memory_resource::borrow(request& wanted) {
  std::optional<borrowed> found;
  {
    section here(*this);
    found = memory_.borrow(wanted);
  }
  return found ? wait_for(wanted, *std::move(found)) : nullptr;
}

/// Near the limit, brings all pages together where nothing is in use: then the same sequence of calls finds the same
/// memory each time, and what fitted once fits again.
void pool_memory_resource::make_whole(request wanted) {
  if (wanted.id.is_capturing() || !memory_is_scattered(wanted) || !accepts_work(wanted.stream, device())) return;
  const relaxed_capture_scope relaxed;
  const std::lock_guard one_at_a_time(growth_);
  reap_pages();
  if (!memory_is_scattered(wanted)) return;
  wanted.bytes = held();
  wanted.alignment = default_alignment;
  void* all = reclaim(wanted);
  if (all == nullptr) all = bring_pages(wanted, 0, true);
  if (all != nullptr) give_to_heap(wanted.stream, wanted.id, all, wanted.bytes - wanted.unasked);
}

/// Whether nothing is in use or pinned, and what is free is not one block of the stream.
bool pool_memory_resource::memory_is_scattered(const request& wanted) {
  section here(*this);
  meet(wanted.stream, wanted.id, here);
  return captures_.empty() && memory_.pins().is_empty() && memory_.bytes_in_use() == 0 &&
         memory_.largest_own(wanted.id) != held();
}

/// Maps pages under a run of addresses: new ones as long as no more than `bound` is held, else pages that are free
/// elsewhere; null where there are not enough.
void* pool_memory_resource::bring_pages(const request& wanted, std::size_t bound, bool may_move, bool may_break) {
  paged_range::request asked{};
  asked.may_create = pages_->room(bound);
  asked.page_bytes = pages_->page_bytes();
  asked.may_move_ready = may_move;
  asked.may_move_own = may_move && wanted.may_wait;
  asked.may_break = may_break;
  asked.is_tight = is_tight();
  std::optional<paged_range::plan> planned;
  {
    const section here(*this);
    planned = memory_.plan_pages(wanted, asked);
  }
  return planned ? map_planned(wanted, *planned) : nullptr;
}

/// Makes the driver's calls for a plan; null, and all is as before, where memory runs out among them.
void* pool_memory_resource::map_planned(const request& wanted, const paged_range::plan& planned) {
  std::shared_ptr<event> used;  // null where nobody uses the pages at their old addresses any more
  try {
    pages_->reserve_retired(planned.fillings.size() + planned.broken.size());
    if (planned.moves_own) used = event::record(wanted.stream, device());
    for (const page& each : planned.broken) pages_->retire(each, nullptr);
    if (!planned.broken.empty()) reap_pages();
  } catch (...) {
    const section here(*this);
    memory_.range().cancel(planned);
    throw;
  }
  if (!bring_all(planned, wanted.stream)) return nullptr;
  for (const paged_range::filling& each : planned.fillings) {
    if (each.from != nullptr) pages_->retire({each.from, each.to.bytes}, used);
  }
  size_caches();
  const section here(*this);
  return memory_.complete(wanted, planned);
}

/// False, and the plan is cancelled, where memory ran out.
bool pool_memory_resource::bring_all(const paged_range::plan& planned, stream_ref stream) {
  std::size_t brought = 0;
  const auto take_back = [&] {
    for (std::size_t i = 0; i < brought; ++i) pages_->undo(planned.fillings[i]);
    const section here(*this);
    memory_.range().cancel(planned);
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
void* pool_memory_resource::wait_and_break(request& wanted) {
  if (!wanted.may_wait || is_capture_underway(device())) return nullptr;
  settle_after_all_work();
  reap_pages();
  if (void* p = take_without_wait(wanted)) return p;
  return bring_pages(wanted, max_allocation, true, true);
}

/// Unmaps the old addresses of pages that have moved, as far as the work that used them is done.
void pool_memory_resource::reap_pages() {
  const std::vector<page> gone = pages_->reap();
  if (gone.empty()) return;
  const section here(*this);
  for (const page& each : gone) memory_.range().was_unmapped(each);
}

std::size_t pool_memory_resource::trim_pages(std::size_t keep_bytes) {
  const std::lock_guard one_at_a_time(growth_);
  const std::size_t before = held();
  reap_pages();
  std::vector<page> free;
  {
    const section here(*this);
    free = memory_.take_ready_pages_out(held() - std::min(held(), keep_bytes));
  }
  pages_->reserve_retired(free.size());
  for (const page& each : free) pages_->retire(each, nullptr);
  reap_pages();
  size_caches();
  const std::size_t given_back = before - held();
  if (given_back != 0) say("gave back", given_back);
  return given_back;
}

/// Steps 1 and 2: what the stream may use at once.
void* pool_memory_resource::take_without_wait(const request& wanted) {
  section here(*this);
  meet(wanted.stream, wanted.id, here);
  return memory_.take(wanted);
}

/// Makes the heap know the stream. One that it does not know is looked at first, with the lock released; throws if it
/// is another device's.
void pool_memory_resource::meet(stream_ref stream, stream_id id, section& here) {
  if (memory_.knows(id)) return;
  if (pages_ && id.is_capturing() && !id.is_nobody()) return meet_capture(stream, id, here);
  if (!id.is_capturing() && id != orphans) {
    const bool is_crowded = memory_.is_crowded();
    here.unlock();
    require_stream_of_device(stream, device());
    if (is_crowded) thin_out(id);
    here.lock();
  }
  memory_.meet(id);
}

/// The capture's memory is its own until the graph is gone; for ever where that cannot be seen.
void pool_memory_resource::meet_capture(stream_ref stream, stream_id id, section& here) {
  here.unlock();
  auto lifetime = graph_lifetime::of_capture(stream, device(), is_graph_gone_);
  here.lock();
  if (memory_.knows(id)) return;
  if (lifetime == nullptr) return memory_.meet(id);
  const auto place = captures_.try_emplace(id, std::move(lifetime)).first;
  try {
    memory_.meet_capture(id);
  } catch (...) {
    captures_.erase(place);
    throw;
  }
}

/// Takes back what graphs used that are gone. Work from before their capture, or of other streams, may still use it: an
/// event over the context covers that, as soon as there is no capture.
void pool_memory_resource::end_captures() noexcept {
  if (!is_graph_gone_->load(std::memory_order_acquire)) [[likely]]
    return;
  try {
    const bool may_mark = !is_capture_underway(device());
    is_graph_gone_->store(!may_mark, std::memory_order_release);  // before they are looked at
    bool must_mark = false;
    {
      const section here(*this);
      std::erase_if(captures_, [this](const auto& each) {
        if (!each.second->is_over()) return false;
        memory_.end_capture(each.first);
        return has_unmarked_orphans_ = true;
      });
      must_mark = may_mark && has_unmarked_orphans_;
      if (must_mark) has_unmarked_orphans_ = false;
    }
    if (must_mark) mark_all();
  } catch (const std::exception& error) {
    report_once("memory of a graph that is gone is not given back yet: ", error.what());
    is_graph_gone_->store(true, std::memory_order_release);
  }
}

/// In whose order memory is freed: that of `stream`, or, where it is another device's, of a stream of this device that
/// waits for it. What covers all work of this device then covers that work as well.
auto pool_memory_resource::stand_in(stream_ref stream, stream_id id, section& here)
    -> std::pair<stream_ref, stream_id> {
  if (memory_.knows(id) || id.is_capturing() || id == orphans) return {stream, id};
  here.unlock();
  const auto its_device = device_or_report(stream);
  if (!its_device) id = orphans;
  if (its_device && *its_device != device()) {
    stream = aside_stream_after(stream, device());
    id = identify(stream, device());
  }
  here.lock();
  return {stream, id};
}

std::optional<int> pool_memory_resource::device_or_report(stream_ref stream) const noexcept {
  try {
    return device_of_stream(stream, device());
  } catch (const std::exception& error) {
    report_once(error.what());
    return std::nullopt;
  }
}

/// As meet(); a stream that the driver would not tell about is nobody from now on.
stream_id pool_memory_resource::meet_or_report(stream_ref stream, stream_id id, section& here) {
  try {
    meet(stream, id, here);
    return id;
  } catch (const cuda_error& error) {
    report_once(freed_on_nobodys_stream, error.what());
    here.lock();
    return orphans;
  }
}

/// Step 3: makes the stream wait on the device for a block that another stream has freed, unless it need not; null, and
/// the block is the lender's again, if it may not.
void* pool_memory_resource::wait_for(request& wanted, borrowed found) {
  const event* const awaited = found.awaited();
  if (awaited == nullptr) return found.pointer;
  try {
    wanted.may_wait = accepts_work(wanted.stream, device());
    if (wanted.may_wait) wait(wanted.stream, *awaited, device());
  } catch (...) {
    const section here(*this);
    memory_.give_back(std::move(found));
    throw;
  }
  const section here(*this);
  if (wanted.may_wait) {
    memory_.has_waited(wanted, found);
    return found.pointer;
  }
  memory_.give_back(std::move(found));
  return nullptr;
}

/// Step 4: what has become ready meanwhile.
void* pool_memory_resource::take_settled(const request& wanted) {
  settle(wanted.id);
  return take_without_wait(wanted);
}

/// A chunk of this size holds the wanted bytes at their alignment, wherever it starts.
std::size_t pool_memory_resource::smallest_chunk(const request& wanted) {
  return align_up(wanted.bytes + (wanted.alignment - block_granularity), block_granularity);
}

/// Step 5 over chunks: more memory.
void* pool_memory_resource::grow(const request& wanted) {
  if (smallest_chunk(wanted) > max_block_bytes) return nullptr;
  const auto fresh = chunks_.take(wanted.stream, wanted.may_wait, smallest_chunk(wanted), wanted.refusal);
  if (!fresh) return nullptr;
  say("grew by", fresh->bytes);
  return add_chunk_and_take(wanted, *fresh);
}

/// Whether most of the pool would stay free.
bool pool_memory_resource::has_plenty(const request& wanted) const {
  const std::lock_guard lock(mutex_);
  return memory_.bytes_in_use() + wanted.bytes <= chunks_.held() / plenty;
}

/// Step 6: every free block of the pool, after one event that covers all of them. Nobody else takes meanwhile, or who
/// may have a block could go without, as others take what was claimed and free as much beside it. What they free
/// meanwhile is claimed as well: it may have merged with what was.
void* pool_memory_resource::reclaim(const request& wanted) {
  if (!wanted.may_wait || is_capture_underway(device())) return nullptr;  // the event would invalidate the capture
  const auto is_anothers = [&](const claim& each) { return each.lender != wanted.id; };
  const hold held(*this);
  void* pointer = nullptr;
  std::vector<claim> claims;
  do {
    {
      const section here(*this);
      claims = memory_.claims_upon_all();
      if (claims.empty()) {
        memory_.let_go();
        return memory_.take(wanted);  // what has become ready since
      }
    }
    wait_for_all_work(wanted.stream, device());
    pointer = take_claims(wanted, claims, 1);
  } while (pointer == nullptr && !wanted.is_planned && std::any_of(claims.begin(), claims.end(), is_anothers));
  const section here(*this);
  if (pointer != nullptr) memory_.mark_at_once();
  return pointer;
}

/// What the stream does not need of what it has joined is marked at once, for others.
void* pool_memory_resource::take_claims(const request& wanted, const std::vector<claim>& claims, std::size_t waits) {
  void* pointer = nullptr;
  std::optional<due_mark> due;
  {
    const section here(*this);
    pointer = memory_.take_claims(wanted, claims, waits, due);
  }
  if (due) place_mark(wanted.stream, wanted.id, *std::move(due));
  return pointer;
}

/// Step 7 over chunks: free chunks that are each too small are worth one that is large enough.
void* pool_memory_resource::make_room_and_grow(const request& wanted) {
  if (smallest_chunk(wanted) > std::min(chunks_.maximum().value_or(max_block_bytes), max_block_bytes))
    return nullptr;  // no room that could be made is enough
  // A captured stream cannot free, and the legacy stream may not even be named beside the capture of a blocking one.
  std::optional<cuda_stream> aside;
  if (!wanted.may_wait) aside.emplace(device(), cuda_stream::kind::non_blocking);
  const stream_ref stream = aside ? aside->view() : wanted.stream;
  std::size_t released = release_chunks(stream, std::nullopt, 0);
  if (aside) {
    synchronize(stream, device());
  } else {
    released += release_chunks(stream, wanted.id, 0);
  }
  return released == 0 ? nullptr : grow(wanted);
}

void* pool_memory_resource::add_chunk_and_take(const request& wanted, chunk fresh) {
  // From a stream-ordered upstream the memory is this stream's for the time being; from another it is everybody's.
  const bool is_mine = upstream()->is_stream_ordered() && wanted.may_wait;
  const auto owner = is_mine ? std::optional(wanted.id) : std::nullopt;
  try {
    const section here(*this);
    memory_.add_chunk(fresh, owner);
    size_caches();
    return memory_.take_fresh(wanted, owner);
  } catch (...) {
    give_up_chunk(wanted, fresh);
    throw;
  }
}

/// Gives a chunk back of which no books could be kept. Nobody has used it.
void pool_memory_resource::give_up_chunk(const request& wanted, chunk fresh) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (memory_.has_chunk(fresh)) return;  // it was added, and only the block was not taken
  }
  if (wanted.may_wait) return chunks_.give(wanted.stream, fresh);
  try {
    const cuda_stream aside(device(), cuda_stream::kind::non_blocking);  // a captured stream cannot free
    chunks_.give(aside.view(), fresh);
  } catch (const std::exception& error) {
    report_once("a chunk of a pool is leaked, as giving it back failed: ", error.what());
  }
}

/// Passes the blocks whose events are complete to everybody; those of `but` stay its own, joined with one another.
void pool_memory_resource::settle(std::optional<stream_id> but) {
  std::vector<std::pair<stream_id, std::deque<mark>>> asked;
  {
    const section here(*this);
    asked = memory_.marks();
  }
  std::vector<claim> settled;
  for (const auto& [id, marks] : asked) {
    if (id == but) continue;
    const auto complete =
        std::find_if(marks.rbegin(), marks.rend(), [](const mark& m) { return m.happened->is_complete(); });
    if (complete != marks.rend()) settled.push_back({id, {complete->epoch, nullptr}});
  }
  asked.clear();  // so that the events are the heap's alone
  const section here(*this);
  memory_.make_ready(settled);
}

/// Where a thousand streams came and went: what all of them have left is covered by one event, and everybody's once the
/// device has done that much; where it has not yet, that is seen the next time.
void pool_memory_resource::thin_out(stream_id spared) noexcept {
  try {
    const relaxed_capture_scope relaxed;
    if (!is_capture_underway(device())) mark_all();
    settle();
  } catch (const std::exception& error) {
    report_once(error.what());  // it is tried again for the next crowd
  }
  const section here(*this);
  memory_.thin_out(spared);
}

void pool_memory_resource::mark_all() {
  std::vector<claim> claims;
  {
    const section here(*this);
    claims = memory_.claims_upon_all();
  }
  const auto all_work = event::record_context(device());
  if (!all_work) return;
  const section here(*this);
  memory_.count_event();
  for (const claim& c : claims) memory_.place(c.lender, {c.upto.epoch, all_work});
}

/// Passes the blocks that no mark covers yet to everybody, if the device has done all that it was given: a pool that
/// has met only one stream has no marks at all. Returns what is not everybody's yet.
auto pool_memory_resource::settle_unmarked() -> pending {
  pending left;
  {
    const section here(*this);
    left.blocks = memory_.claims_upon_all();
  }
  if (left.blocks.empty() || is_capture_underway(device())) return left;
  left.done = event::record_context(device());
  if (!left.done) return {};  // the driver has no such event, and will not have one later
  const bool is_done = left.done->is_complete();
  const section here(*this);
  memory_.count_event();
  if (!is_done) return left;
  memory_.make_ready(left.blocks);
  return {};
}

/// Passes all free blocks to everybody, after the host has waited for the work that may use them.
void pool_memory_resource::settle_after_all_work() {
  std::vector<claim> claims;
  {
    const section here(*this);
    claims = memory_.claims_upon_all();
  }
  if (synchronize_beside_captures(device())) make_ready(claims);
}

/// Gives chunks of the stream `of`, or ready ones, back in the order of `stream`.
std::size_t pool_memory_resource::release_chunks(stream_ref stream, std::optional<stream_id> of,
                                                 std::size_t keep_bytes) {
  std::vector<chunk> released;
  std::size_t bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto exceeds_what_is_kept = [&, held = chunks_.held()](const chunk& c) {
      if (held - bytes - c.bytes < keep_bytes) return false;
      bytes += c.bytes;
      return true;
    };
    released = memory_.remove_free_chunks(of, exceeds_what_is_kept);
  }
  for (const chunk& c : released) chunks_.give(stream, c);
  size_caches();
  if (bytes != 0) say("gave back", bytes);
  return bytes;
}

/// After the pool has another size.
void pool_memory_resource::size_caches() {
  if (!pages_) return caches_.set_budget(held() / shares_of_a_cache);
  caches_.set_budget(std::max(held() / (is_tight() ? shares_of_a_tight_cache : shares_of_a_cache), least_cache));
  memory_.be_tight(is_tight());
}

/// Whether so much is held that pages are scarce: more than nine tenths of the most that the pool may hold.
bool pool_memory_resource::is_tight() const {
  const auto limit = pages_->maximum();
  return limit && held() > *limit / 10 * 9;
}

void pool_memory_resource::say(const char* what, std::size_t bytes) const noexcept {
  if (!should_log(log_level::debug)) return;
  log(log_level::debug, "the pool on device ", device(), " ", what, " ", format_bytes(bytes), " and holds ",
      format_bytes(pool_size()));
}

/// An event after all that the stream was given so far; null, and reported, if it cannot be had.
std::shared_ptr<event> pool_memory_resource::record_or_report(stream_ref stream,
                                                              std::shared_ptr<event> reused) const noexcept {
  try {
    if (!accepts_work(stream, device())) return nullptr;
    if (!reused) return event::record(stream, device());
    reused->record_again(stream, device());
    return reused;
  } catch (const std::exception& error) {
    report_once(error.what());  // the blocks stay this stream's own until a later mark covers them
    return nullptr;
  }
}

void pool_memory_resource::place_mark(stream_ref stream, stream_id id, due_mark due) noexcept {
  mark placed{due.epoch, record_or_report(stream, std::move(due.reused))};
  if (placed.happened == nullptr) return;
  const section here(*this);
  memory_.count_event();
  memory_.place(id, std::move(placed));
}

std::size_t pool_memory_resource::trim(std::size_t keep_bytes, bool wait) {
  const nvtx::trim_range range(keep_bytes);
  const relaxed_capture_scope relaxed;
  end_captures();
  if (wait) settle_after_all_work();
  settle();
  unfinished_trim rest{keep_bytes, settle_unmarked()};
  // The legacy default stream is there at any time, and may be named.
  if (rest.left.done != nullptr) settle_own({}, legacy_default_id, rest.left.blocks);
  const std::size_t given_back = give_back(keep_bytes);
  const auto earlier = take_unfinished_trim();  // this one asks for what that did
  if (!rest.left.blocks.empty() && held() > keep_bytes) keep_unfinished_trim(std::move(rest));
  return given_back;
}

/// Gives back what is everybody's.
std::size_t pool_memory_resource::give_back(std::size_t keep_bytes) {
  if (pages_) return trim_pages(keep_bytes);
  return release_chunks(unnamed_stream(device()).view(), std::nullopt, keep_bytes);
}

/// Gives back what a trim could not, as far as the work that may use it is done by now: that of all streams, or that of
/// the calling one.
void pool_memory_resource::finish_trim(stream_ref stream, stream_id id) noexcept {
  if (!has_unfinished_trim_.load(std::memory_order_relaxed)) [[likely]]
    return;
  try {
    if (id.is_capturing() || is_capture_underway(device())) return;
    const relaxed_capture_scope relaxed;
    auto rest = take_unfinished_trim();
    if (!rest) return;
    auto& [keep_bytes, left] = *rest;
    if (left.done == nullptr) {  // a capture was in the way
      left = settle_unmarked();
    } else if (left.done->is_complete()) {
      make_ready(std::exchange(left, {}).blocks);
    } else if (!settle_own(stream, id, left.blocks)) {
      return keep_unfinished_trim(*std::move(rest));
    }
    give_back(keep_bytes);
    if (!left.blocks.empty()) keep_unfinished_trim(*std::move(rest));
  } catch (const std::exception& error) {
    report_once("what a trim left could not be given back: ", error.what());
  }
}

/// Passes the stream's own of these blocks to everybody if its work is done, which an event shows.
bool pool_memory_resource::settle_own(stream_ref stream, stream_id id, std::vector<claim>& blocks) {
  const auto own = std::ranges::find(blocks, id, &claim::lender);
  if (own == blocks.end() || id == orphans) return false;
  auto& behind = own->upto.happened;
  const bool is_new = behind == nullptr;
  if (is_new) behind = record_or_report(stream, nullptr);
  if (behind == nullptr || !(is_new ? is_complete_at_once(*behind) : behind->is_complete())) return false;
  make_ready({*own});
  blocks.erase(own);
  return true;
}

void pool_memory_resource::make_ready(const std::vector<claim>& settled) {
  const section here(*this);
  memory_.make_ready(settled);
}

auto pool_memory_resource::take_unfinished_trim() -> std::optional<unfinished_trim> {
  const section here(*this);
  has_unfinished_trim_.store(false, std::memory_order_relaxed);
  return std::exchange(trim_, std::nullopt);
}

/// Unless there is a later one, which has all that this one has.
void pool_memory_resource::keep_unfinished_trim(unfinished_trim rest) {
  const section here(*this);
  if (!trim_) trim_.emplace(std::move(rest));
  has_unfinished_trim_.store(true, std::memory_order_relaxed);
}

std::size_t pool_memory_resource::pool_size() const { return held(); }

pool_counters pool_memory_resource::counters() const {
  const std::lock_guard lock(mutex_);
  return memory_.counters();
}

void pool_memory_resource::grow_in_steps_of(std::size_t bytes) {
  check_pool_size("step of the", bytes);
  if (bytes > max_block_bytes) throw std::logic_error("a pool cannot grow by 1 TiB or more at once");
  chunks_.set_step(bytes);
}

std::string pool_memory_resource::map() const {
  std::string text;
  const auto draw = [&](const block& b) {
    const char* const what = memory_.is_unmapped(b) ? " without pages\n"
                             : b.is_free            ? " free\n"
                             : b.is_cached          ? " free, set aside\n"
                                                    : " in use\n";
    text += format_address(b.address) + ' ' + std::to_string(b.bytes()) + what;
  };
  const std::lock_guard lock(mutex_);
  memory_.for_each_block(draw);
  return text;
}

void pool_memory_resource::pin(const void* pointer, pin_kind kind) {
  const std::lock_guard lock(mutex_);
  memory_.pin(pointer, kind);
}

void pool_memory_resource::unpin(const void* pointer, pin_kind kind) {
  const std::lock_guard lock(mutex_);
  memory_.unpin(pointer, kind);
}

std::vector<pool_pin> pool_memory_resource::pins() const {
  const std::lock_guard lock(mutex_);
  return memory_.pins().list();
}

std::string pool_memory_resource::specification() const {
  const auto spell = [](const char* name, std::optional<std::size_t> bytes) {
    return bytes ? name + spell_bytes(*bytes) : std::string{};
  };
  return spell_specification(kind(), {spell("initial=", initial_), spell("max=", chunks_.maximum())});
}

memory_state pool_memory_resource::state() const {
  const memory_state under = upstream()->state();
  memory_state figures = own_state();
  figures.device_free = under.device_free;
  figures.device_total = under.device_total;
  return figures;
}

memory_state pool_memory_resource::own_state() const {
  memory_state figures;
  figures.held = held();
  figures.limit = chunks_.maximum();
  const std::lock_guard lock(mutex_);
  figures.in_use = memory_.bytes_in_use();
  figures.largest_free = memory_.largest_free();
  return figures;
}

void pool_memory_resource::check() const {
  {
    const std::lock_guard no_plan_is_open(growth_);  // whose run is neither free nor mapped
    const std::lock_guard lock(mutex_);
    memory_.check();
    if (held() < memory_.chunk_bytes() || held() > chunks_.maximum().value_or(max_allocation)) {
      throw std::logic_error("chunk_source I1: the pool's size is wrong");
    }
  }
  upstream()->check();
}

}  // namespace cenote::inline v1
