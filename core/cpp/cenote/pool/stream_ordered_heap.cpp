#include "cenote/pool/stream_ordered_heap.hpp"

#include <algorithm>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/check.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/thread_slot.hpp"

namespace cenote::inline v1::pool {

stream_ordered_heap::stream_ordered_heap() : ready_(heap_.create_owner()) {}

void stream_ordered_heap::meet(stream_id id) {
  if (timelines_.are_many()) drop_idle(id);
  timelines_.meet(id, heap_);
}

void stream_ordered_heap::collect_last_freed() noexcept {
  const auto freed = caches_.last().collect();
  if (!freed) [[likely]]
    return;
  try {
    give(timelines_.meet(freed->stream, heap_), freed->index);
  } catch (const std::exception& error) {
    heap_.blocks()[freed->index].is_cached = false;
    report_once("a block is leaked, as its stream was forgotten and cannot be made known again: ", error.what());
  }
}

owner_index stream_ordered_heap::owner_of(std::optional<stream_id> stream) {
  return stream ? timelines_.meet(*stream, heap_).owner() : ready_;
}

void* stream_ordered_heap::take(const request& wanted) {
  if (is_held_ || is_closed_) return nullptr;
  const owner_index own = owner_of(wanted.id);
  if (wanted.is_planned) return nullptr;
  const block_index of_own = find(own, wanted);
  const block_index of_ready = takes_ready(wanted) ? find(ready_, wanted) : no_block;
  const bool is_own = of_ready == no_block || (of_own != no_block && heap_[of_own].bytes() <= heap_[of_ready].bytes());
  if (const block_index smaller = is_own ? of_own : of_ready; smaller != no_block) {
    void* const p = take_found(smaller, wanted, is_own ? counters_.from_own_stream : counters_.from_ready);
    restock(wanted, is_own ? own : ready_);
    return p;
  }
  return empty_caches(wanted.id) ? take_from(own, wanted, counters_.from_own_stream) : nullptr;
}

/// Over pages, what a graph uses lies on pages of its own.
bool stream_ordered_heap::takes_ready(const request& wanted) const noexcept {
  return !range_ || !wanted.id.is_capturing() || wanted.id.is_nobody();
}

block_index stream_ordered_heap::find(owner_index owner, const request& wanted) const noexcept {
  return heap_.find(owner, wanted.bytes, wanted.alignment, wanted.is_thorough);
}

void* stream_ordered_heap::take_from(owner_index owner, const request& wanted, std::uint64_t& path) {
  const block_index found = find(owner, wanted);
  return found == no_block ? nullptr : take_found(found, wanted, path);
}

void* stream_ordered_heap::take_found(block_index found, const request& wanted, std::uint64_t& path) {
  std::optional<owner_index> keeper;
  if (wanted.id.is_capturing() && !wanted.id.is_nobody()) keeper = owner_of(wanted.id);  // a graph will use it again
  void* const pointer = heap_.take(found, wanted.bytes, wanted.alignment, keeper, this_thread_slot(), wanted.unasked);
  if (heap_.has_outgrown_tables()) [[unlikely]]
    caches_.alone([&] { heap_.release_outgrown_tables(); });
  ++counters_.allocations;
  ++path;
  if constexpr (check_level >= 2) heap_.check();
  return pointer;
}

void stream_ordered_heap::restock(const request& wanted, owner_index from) noexcept {
  if (wanted.alignment != default_alignment || wanted.id.is_capturing()) return;
  try {
    for (std::uint32_t more = caches_.restock(wanted.id, wanted.bytes); more > 1; --more) {
      const block_index found = find(from, wanted);
      if (found == no_block) return;
      const stamp freed_at = heap_[found].freed_at;
      const block_index brought =
          heap_.taken_at(heap_.take(found, wanted.bytes, wanted.alignment, {}, this_thread_slot()));
      if (caches_.stock(wanted.id, brought)) continue;
      heap_.give(brought, from, freed_at);
      return;
    }
  } catch (const std::bad_alloc&) {  // of the host's memory: then without
  }
}

bool stream_ordered_heap::has_piece(const request& wanted) {
  const auto is_piece = [&](block_index found) {
    return found != no_block && heap_[found].bytes() < page_map::slot_bytes;
  };
  return is_piece(find(owner_of(wanted.id), wanted)) || (takes_ready(wanted) && is_piece(find(ready_, wanted)));
}

auto stream_ordered_heap::borrow(const request& wanted, std::size_t below) -> std::optional<borrowed> {
  if (is_held_ || is_closed_) return std::nullopt;
  const stream_timeline& mine = timelines_.meet(wanted.id, heap_);
  block_index smallest = no_block;
  stream_id of{};
  mark awaited{};
  for (const auto& [id, lender] : timelines_) {
    if (id == wanted.id || id.is_capturing()) continue;
    const block_index found = find(lender.owner(), wanted);
    if (found == no_block || heap_[found].bytes() >= below) continue;
    const stamp freed_at = heap_[found].freed_at;
    const bool is_known = freed_at <= mine.known_of(id);
    const mark* const covering = is_known ? nullptr : lender.covering(freed_at);
    if (!is_known && covering == nullptr) continue;
    smallest = found;
    of = id;
    awaited = is_known ? mark{freed_at, nullptr} : *covering;
    below = heap_[found].bytes();
    if (below == wanted.bytes) break;
  }
  if (smallest == no_block) return std::nullopt;
  const stamp freed_at = heap_[smallest].freed_at;
  return borrowed{take_found(smallest, wanted, counters_.from_other_stream), of, freed_at, std::move(awaited)};
}

void stream_ordered_heap::has_waited(const request& wanted, borrowed& found) {
  ++counters_.waits;
  timelines_.was_awaited();
  try {
    timelines_.meet(wanted.id, heap_).learn(found.lender, found.covering.epoch);
  } catch (const std::bad_alloc&) {  // of the host's memory: it will wait again
  }
  spares().keep(std::move(found.covering.happened));
}

void stream_ordered_heap::give_back(borrowed returned) noexcept {
  --counters_.allocations;
  --counters_.from_other_stream;
  try {
    stream_timeline& lender = timelines_.meet(returned.lender, heap_);  // it may have been dropped meanwhile
    heap_.give(heap_.taken_at(returned.pointer), lender.owner(), returned.freed_at);
    if (lender.covering(returned.freed_at) == nullptr) return place(returned.lender, std::move(returned.covering));
    spares().keep(std::move(returned.covering.happened));
  } catch (const std::exception& error) {
    report_once("a block is leaked, as giving it back to the stream that had freed it failed: ", error.what());
  }
}

void* stream_ordered_heap::take_claims(const request& wanted, const std::vector<claim>& claims,
                                       std::optional<due_mark>& due) {
  stream_timeline& mine = timelines_.meet(wanted.id, heap_);
  ++counters_.waits;
  for (const auto& [lender, upto] : claims) {
    const stream_timeline* const timeline = timelines_.find(lender);
    if (timeline == nullptr) continue;
    heap_.reown(timeline->owner(), upto.epoch, mine.owner(), mine.open_epoch());
    if (lender != wanted.id) mine.learn(lender, upto.epoch);
  }
  heap_.reown(ready_, std::numeric_limits<stamp>::max(), mine.owner(), mine.open_epoch());
  void* const pointer = wanted.is_planned ? nullptr : take_from(mine.owner(), wanted, counters_.from_reclaim);
  if (timelines_.size() > 1) due = timelines_.close(mine);
  return pointer;
}

auto stream_ordered_heap::claims_upon_all() -> std::vector<claim> {
  empty_caches({});
  std::vector<claim> claims;
  for (auto& [id, timeline] : timelines_) {
    if (!id.is_capturing() && heap_.free_bytes(timeline.owner()) != 0) {
      claims.push_back({id, {timeline.close_epoch(), nullptr}});
    }
  }
  return claims;
}

auto stream_ordered_heap::free(stream_id id, const void* pointer) -> std::optional<freed_block> {
  const block_index freed = heap_.taken_at(pointer);
  if (freed == no_block) return std::nullopt;
  stream_timeline& mine = timelines_.meet(id, heap_);
  freed_block outcome{heap_[freed].bytes(), heap_[freed].asked_bytes(), std::nullopt};
  give(mine, freed);
  outcome.due = timelines_.close_if_worth_a_mark(mine, bytes_that_share_marks());
  return outcome;
}

auto stream_ordered_heap::free_spilled(stream_id id, block_index spilled, bool may_be_marked)
    -> std::optional<due_mark> {
  const auto for_each_spilled = [&](auto&& use) {
    while (spilled != no_block) use(std::exchange(spilled, heap_[spilled].free_next));
  };
  if (!knows(id)) {
    try {
      timelines_.meet(id, heap_);
    } catch (...) {
      for_each_spilled([this](block_index lost) { heap_.blocks()[lost].is_cached = false; });  // nobody's for ever
      throw;
    }
  }
  stream_timeline& mine = *timelines_.find(id);
  for_each_spilled([&](block_index freed) { give(mine, freed); });
  return may_be_marked ? timelines_.close_if_worth_a_mark(mine, bytes_that_share_marks()) : std::nullopt;
}

/// Frees a taken block, which may be cached, to a stream.
void stream_ordered_heap::give(stream_timeline& to, block_index freed) noexcept {
  heap_.blocks()[freed].is_cached = false;
  if (is_tight_.load(std::memory_order_relaxed) && !to.id().is_capturing()) {
    for (const block_index beside : {heap_[freed].prev, heap_[freed].next}) absorb(to, beside);
  }
  to.count_free(heap_[freed].bytes());
  heap_.give(freed, to.owner(), to.open_epoch());
  if constexpr (check_level >= 2) heap_.check();
}

/// Passes a free block to a stream that frees the one beside it, if the stream need not wait for it: so memory of
/// several streams does not stay in pieces.
void stream_ordered_heap::absorb(stream_timeline& to, block_index beside) noexcept {
  if (beside == no_block || !heap_[beside].is_free || heap_[beside].owner == to.owner()) return;
  if (heap_[beside].owner == ready_) return heap_.pass(beside, to.owner(), to.open_epoch());
  const stream_timeline* const other = timelines_.of_owner(heap_[beside].owner);
  if (other == nullptr || other->id().is_capturing() || heap_[beside].freed_at > to.known_of(other->id())) return;
  heap_.pass(beside, to.owner(), to.open_epoch());
}

/// Frees what lies in the caches of one stream, or of all; false if nothing does. No mark covers it yet.
bool stream_ordered_heap::empty_caches(std::optional<stream_id> only) {
  return caches_.drain(only, [this](stream_id id) {
    stream_timeline& owner = timelines_.meet(id, heap_);
    return [this, &owner](block_index freed) noexcept { give(owner, freed); };
  });
}

/// Of so many bytes a thirty-second is worth a mark. Where marks are spared, only the number of frees counts.
std::size_t stream_ordered_heap::bytes_that_share_marks() const noexcept {
  return spares_marks() ? std::numeric_limits<std::size_t>::max() : chunk_bytes();
}

std::vector<std::pair<stream_id, std::vector<mark>>> stream_ordered_heap::marks() {
  std::vector<std::pair<stream_id, std::vector<mark>>> all;
  for (const auto& [id, timeline] : timelines_) {
    if (auto of_one = timeline.marks(); !of_one.empty()) all.emplace_back(id, std::move(of_one));
  }
  return all;
}

/// Passes what was claimed to everybody: the device has done what the marks stand for.
void stream_ordered_heap::make_ready(const std::vector<claim>& settled) {
  for (const auto& [id, upto] : settled) {
    stream_timeline* const timeline = timelines_.find(id);
    if (timeline == nullptr) continue;
    heap_.reown(timeline->owner(), upto.epoch, ready_, 0);
    timelines_.forget_marks(*timeline, upto.epoch);
  }
  if (!settled.empty()) timelines_.need_marks();
  if constexpr (check_level >= 2) heap_.check();
}

void stream_ordered_heap::drop_idle(stream_id spared) noexcept { timelines_.drop_idle(spared, heap_, caches_); }

/// After what has become ready was passed on.
void stream_ordered_heap::thin_out(stream_id spared) noexcept {
  drop_idle(spared);
  timelines_.expect_a_crowd();
}

void stream_ordered_heap::add_chunk(const chunk& fresh, std::optional<stream_id> of) {
  const stamp freed_at = of ? timelines_.meet(*of, heap_).open_epoch() : 0;
  heap_.add_chunk(fresh, owner_of(of), freed_at);
  ++counters_.upstream_allocations;
}

void* stream_ordered_heap::take_fresh(const request& wanted, std::optional<stream_id> of) {
  return take_from(owner_of(of), wanted, counters_.from_upstream);
}

std::vector<chunk> stream_ordered_heap::remove_free_chunks(std::optional<stream_id> of,
                                                           const std::function<bool(const chunk&)>& wanted) {
  const auto may_leave = [&](const chunk& memory) { return !pins_.overlaps(memory) && wanted(memory); };
  auto removed = heap_.remove_free_chunks(owner_of(of), may_leave);
  counters_.upstream_frees += removed.size();
  return removed;
}

auto stream_ordered_heap::plan_pages(const request& wanted, paged_range::request asked)
    -> std::optional<paged_range::plan> {
  asked.bytes = wanted.bytes;
  asked.alignment = wanted.alignment;
  asked.own = owner_of(wanted.id);
  asked.uses_ready = takes_ready(wanted);
  if (wanted.id.is_capturing() && !wanted.id.is_nobody()) asked.keeper = asked.own;
  asked.taker = this_thread_slot();
  asked.unasked = wanted.unasked;
  return range_->make_plan(asked);
}

/// Makes the rest of the pages everybody's where they are new or were ready, else the stream's; the pages of a capture
/// stay its own.
void* stream_ordered_heap::complete(const request& wanted, const paged_range::plan& done) {
  const stream_timeline& mine = timelines_.meet(wanted.id, heap_);
  const bool is_everybodys = !done.moves_own && takes_ready(wanted);
  range_->complete(done, is_everybodys ? ready_ : mine.owner(), is_everybodys ? 0 : mine.open_epoch());
  if (heap_.has_outgrown_tables()) [[unlikely]]
    caches_.alone([&] { heap_.release_outgrown_tables(); });
  ++counters_.allocations;
  ++counters_.from_upstream;
  for (const auto& each : done.fillings)
    ++(each.from == nullptr ? counters_.upstream_allocations : counters_.pages_moved);
  counters_.upstream_frees += done.broken.size();
  if constexpr (check_level >= 2) check();
  return heap_[done.block].address;
}

auto stream_ordered_heap::plan_ready_pages(paged_range::request asked) -> std::optional<paged_range::plan> {
  asked.own = ready_;
  return range_->make_plan(asked);
}

void stream_ordered_heap::complete_ready(const paged_range::plan& done) noexcept {
  range_->complete(done, ready_, 0);
  heap_.give(done.block, ready_, 0);
  counters_.upstream_allocations += done.fillings.size();
}

std::vector<page> stream_ordered_heap::take_ready_pages_out(std::size_t bytes) {
  auto pages = range_->take_out(ready_, bytes);
  counters_.upstream_frees += pages.size();
  return pages;
}

void stream_ordered_heap::pin(const void* pointer, pin_kind kind) {
  if (is_closed_) throw std::runtime_error("a paused pool pins nothing: resume it first");
  const chunk block = caches_.alone([&]() -> chunk {
    const block_index found = heap_.taken_at(pointer);
    if (found == no_block || heap_[found].is_cached) return {};
    return {heap_[found].address, heap_[found].bytes()};
  });
  // The block of an open plan counts as taken, but has no pages yet, and nobody has its address.
  if (block.bytes == 0 || (range_ && !range_->is_mapped(block.base, block.bytes))) {
    throw std::invalid_argument("no block in use starts at " + format_address(pointer) + ", so it cannot be pinned");
  }
  pins_.add(block, kind, range_ ? &*range_ : nullptr);
}

void stream_ordered_heap::unpin(const void* pointer, pin_kind kind) {
  if (pins_.remove(pointer, kind, range_ ? &*range_ : nullptr)) return;
  throw std::invalid_argument(std::string("nothing is pinned as ") + spell_pin_kind(kind) + " at " +
                              format_address(pointer));
}

void stream_ordered_heap::meet_capture(stream_id id) {
  const owner_index owner = owner_of(id);
  try {
    heap_.retire_apart(owner);
  } catch (...) {
    timelines_.drop(id, heap_, caches_);
    throw;
  }
}

void stream_ordered_heap::continue_capture(stream_id earlier, stream_id id) {
  const stream_timeline* const its = timelines_.find(earlier);
  const auto is_of_it = [&](const auto& each) { return each.first.is_capturing() && each.first.value == id.value; };
  const bool is_its_first_branch = std::none_of(timelines_.begin(), timelines_.end(), is_of_it);
  if (is_its_first_branch) heap_.take_retired(its->owner(), its->open_epoch());
  timelines_.rename(earlier, id);
  if constexpr (check_level >= 2) heap_.check();
}

void stream_ordered_heap::end_capture(stream_id id) {
  empty_caches(id);
  const stream_timeline& of_nobody = timelines_.meet(orphans, heap_);
  heap_.let_go(owner_of(id), of_nobody.owner(), of_nobody.open_epoch());
  timelines_.drop(id, heap_, caches_);
  if constexpr (check_level >= 2) heap_.check();
}

std::size_t stream_ordered_heap::bytes_in_use() const {
  return heap_.bytes_in_use() - std::min(heap_.bytes_in_use(), caches_.bytes());
}

std::size_t stream_ordered_heap::blocks_in_use() const { return heap_.blocks_in_use() - caches_.blocks(); }

std::size_t stream_ordered_heap::largest_free() const {
  std::unordered_set<owner_index> owners{ready_};
  for (const auto& [id, timeline] : timelines_) {
    if (!id.is_capturing()) owners.insert(timeline.owner());
  }
  const auto may_be_had = [&](const block& b) { return b.is_free ? owners.contains(b.owner) : b.is_cached; };
  return caches_.alone([&] { return heap_.largest_run(may_be_had); });
}

pool_counters stream_ordered_heap::counters() const {
  pool_counters all = counters_;
  all.from_front_cache = caches_.hits();
  all.from_own_stream += caches_.last().hits();
  all.allocations += all.from_front_cache + caches_.last().hits();
  return all;
}

void stream_ordered_heap::for_each_block(const std::function<void(const block&)>& visit) const {
  caches_.alone([&] { heap_.for_each_block(visit); });
}

void stream_ordered_heap::check() const {
  heap_.check();
  caches_.check();
  if (range_) range_->check();
  pins_.check(range_ ? &*range_ : nullptr);
}

}  // namespace cenote::inline v1::pool
