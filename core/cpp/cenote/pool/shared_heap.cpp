#include "cenote/pool/shared_heap.hpp"

#include <algorithm>
#include <utility>

#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/graph_lifetime.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/log.hpp"

namespace cenote::inline v1::pool {
namespace {

/// Asks a few times: an event behind an idle stream takes a moment to complete.
bool is_complete_at_once(const event& recorded) {
  for (int times_to_ask = 8; times_to_ask > 0; --times_to_ask) {
    if (recorded.is_complete()) return true;
  }
  return false;
}

}  // namespace

void shared_heap::section::destroy_surplus() noexcept {
  const auto surplus = heap_.heap_.spares().take_surplus();
  lock_.unlock();
}

shared_heap::hold::hold(shared_heap& heap) : heap_(heap) {
  const std::lock_guard lock(heap_.mutex_);
  heap_.heap_.hold();
}

shared_heap::hold::~hold() {
  const std::lock_guard lock(heap_.mutex_);
  heap_.heap_.let_go();
}

void shared_heap::close() noexcept {
  is_closed_.store(true, std::memory_order_relaxed);
  heap_.caches().set_budget(0);
  const std::lock_guard lock(mutex_);
  heap_.close();
}

void shared_heap::open() noexcept {
  const std::lock_guard lock(mutex_);
  heap_.open();
  is_closed_.store(false, std::memory_order_relaxed);
}

void* shared_heap::take_or_borrow(request& wanted, bool may_borrow) {
  void* pointer = nullptr;
  std::optional<stream_ordered_heap::borrowed> found;
  {
    section here(*this);
    meet(wanted.stream, wanted.id, here);
    wanted.is_scattered = wanted.held != 0 && is_scattered(here, wanted.id, wanted.held);
    if (wanted.is_scattered) [[unlikely]]
      return nullptr;
    if (may_borrow && wanted.is_sparing && !here->has_piece(wanted)) found = here->borrow(wanted, page_map::slot_bytes);
    if (!found) pointer = here->take(wanted);
    if (!found && pointer == nullptr && may_borrow) found = here->borrow(wanted);
  }
  if (pointer != nullptr) {
    if (caches().may_keep(wanted.bytes)) caches().open(wanted.id);
    return pointer;
  }
  if (found) return wait_for(wanted, *std::move(found));
  wanted.may_wait = !wanted.id.is_capturing() && accepts_work(wanted.stream, device_);
  return nullptr;
}

void* shared_heap::take(const request& wanted) {
  section here(*this);
  meet(wanted.stream, wanted.id, here);
  return here->take(wanted);
}

void* shared_heap::take_settled(const request& wanted) {
  settle(wanted.id);
  return take(wanted);
}

void* shared_heap::borrow(request& wanted) {
  std::optional<stream_ordered_heap::borrowed> found;
  {
    section here(*this);
    found = here->borrow(wanted);
  }
  return found ? wait_for(wanted, *std::move(found)) : nullptr;
}

/// Makes the stream wait on the device for a block that another stream has freed, unless it need not; null, and
/// the block is the lender's again, if it may not.
void* shared_heap::wait_for(request& wanted, stream_ordered_heap::borrowed found) {
  const event* const awaited = found.awaited();
  if (awaited == nullptr) return found.pointer;
  try {
    wanted.may_wait = accepts_work(wanted.stream, device_);
    if (wanted.may_wait) wait(wanted.stream, *awaited, device_);
  } catch (...) {
    const section here(*this);
    here->give_back(std::move(found));
    throw;
  }
  const section here(*this);
  if (wanted.may_wait) {
    here->has_waited(wanted, found);
    return found.pointer;
  }
  here->give_back(std::move(found));
  return nullptr;
}

/// Nobody else takes meanwhile, or who
/// may have a block could go without, as others take what was claimed and free as much beside it. What they free
/// meanwhile is claimed as well: it may have merged with what was.
void* shared_heap::reclaim(const request& wanted) {
  if (!wanted.may_wait || is_capture_underway(device_)) return nullptr;  // the event would invalidate the capture
  const auto is_anothers = [&](const claim& each) { return each.lender != wanted.id; };
  const hold held(*this);
  void* pointer = nullptr;
  std::vector<claim> claims;
  do {
    {
      const section here(*this);
      claims = here->claims_upon_all();
      if (claims.empty()) {
        here->let_go();
        return here->take(wanted);  // what has become ready since
      }
    }
    wait_for_all_work(wanted.stream, device_);
    pointer = take_claims(wanted, claims);
  } while (pointer == nullptr && !wanted.is_planned && std::any_of(claims.begin(), claims.end(), is_anothers));
  const section here(*this);
  if (pointer != nullptr) here->mark_at_once();
  return pointer;
}

/// What the stream does not need of what it has joined is marked at once, for others.
void* shared_heap::take_claims(const request& wanted, const std::vector<claim>& claims) {
  void* pointer = nullptr;
  std::optional<due_mark> due;
  {
    const section here(*this);
    pointer = here->take_claims(wanted, claims, due);
  }
  if (due) place_mark(wanted.stream, wanted.id, *std::move(due));
  return pointer;
}

bool shared_heap::is_scattered(section& here, stream_id id, std::size_t held) {
  return captures_.empty() && here->pins().is_empty() && here->bytes_in_use() == 0 && here->largest_own(id) != held;
}

bool shared_heap::is_scattered(const request& whole) {
  section here(*this);
  meet(whole.stream, whole.id, here);
  return is_scattered(here, whole.id, whole.bytes);
}

void shared_heap::meet(stream_ref stream, stream_id id, section& here) {
  if (here->knows(id)) return;
  if (here->is_range() && id.is_capturing() && !id.is_nobody()) return meet_capture(stream, id, here);
  if (!id.is_capturing() && id != orphans) {
    const bool is_crowded = here->is_crowded();
    here.unlock();
    require_stream_of_device(stream, device_);
    if (is_crowded) thin_out(id);
    here.lock();
  }
  here->meet(id);
}

bool shared_heap::captured::is_over() const noexcept {
  return std::ranges::all_of(graphs, [](const auto& graph) { return graph->is_over(); });
}

/// The capture's memory is its own until the graph is gone; for ever where that cannot be seen. In a pool of graphs it
/// begins with what an earlier capture of this stream left.
void shared_heap::meet_capture(stream_ref stream, stream_id id, section& here) {
  here.unlock();
  auto pool = graph_pool::of_capture(stream, device_);
  auto lifetime = graph_lifetime::of_capture(stream, device_, is_graph_gone_);
  here.lock();
  if (here->knows(id)) return;
  if (lifetime == nullptr) return here->meet(id);
  const auto earlier = pool != nullptr ? find_earlier(id, *pool) : captures_.end();
  if (earlier != captures_.end()) return continue_capture(earlier, id, std::move(lifetime), here);
  captured fresh{{std::move(lifetime)}, std::move(pool)};
  const auto place = captures_.try_emplace(id, std::move(fresh)).first;
  try {
    here->meet_capture(id);
  } catch (...) {
    captures_.erase(place);
    throw;
  }
}

/// The memory is that of both graphs from now on.
void shared_heap::continue_capture(captures::iterator earlier, stream_id id,
                                   std::shared_ptr<const graph_lifetime> lifetime, section& here) {
  std::erase_if(earlier->second.graphs, [](const auto& graph) { return graph->is_over(); });
  earlier->second.graphs.push_back(std::move(lifetime));
  here->continue_capture(earlier->first, id);
  const auto number = static_cast<std::uint32_t>(recorder::stream_number(id.value, true));
  recorder::note(recorder::event::hold, device_, nullptr, number,
                 {.stream = recorder::stream_number(earlier->first.value, true)});
  auto moved = captures_.extract(earlier);
  moved.key() = id;
  captures_.insert(std::move(moved));
}

/// Finds an earlier capture of the same stream into the pool. It has ended, as its stream is in a later one.
auto shared_heap::find_earlier(stream_id id, const graph_pool& pool) -> captures::iterator {
  return std::ranges::find_if(
      captures_, [&](const auto& each) { return each.second.pool.get() == &pool && each.first.branch == id.branch; });
}

/// What covers all work of this device then covers that of a stream of another one as well.
std::pair<stream_ref, stream_id> shared_heap::meet_freeing(stream_ref stream, stream_id id, section& here) {
  if (here->knows(id)) return {stream, id};
  if (!id.is_capturing() && id != orphans) {
    here.unlock();
    const auto its_device = device_or_report(stream);
    if (!its_device) id = orphans;
    if (its_device && *its_device != device_) {
      stream = aside_stream_after(stream, device_);
      id = identify(stream, device_);
    }
    here.lock();
  }
  try {
    meet(stream, id, here);
  } catch (const cuda_error& error) {
    report_once(freed_on_nobodys_stream, error.what());
    here.lock();
    id = orphans;
  }
  return {stream, id};
}

std::optional<int> shared_heap::device_or_report(stream_ref stream) const noexcept {
  try {
    return device_of_stream(stream, device_);
  } catch (const std::exception& error) {
    report_once(error.what());
    return std::nullopt;
  }
}

/// Takes back what graphs used that are gone. Work from before their capture, or of other streams, may still use it: an
/// event over the context covers that, as soon as there is no capture.
void shared_heap::take_back_captured() noexcept {
  try {
    const bool may_mark = !is_capture_underway(device_);
    is_graph_gone_->store(!may_mark, std::memory_order_release);  // before they are looked at
    bool must_mark = false;
    std::vector<stream_id> gone;
    {
      const section here(*this);
      std::erase_if(captures_, [&](const auto& each) {
        if (!each.second.is_over()) return false;
        gone.push_back(each.first);
        here->end_capture(each.first);
        return has_unmarked_orphans_ = true;
      });
      must_mark = may_mark && has_unmarked_orphans_;
      if (must_mark) has_unmarked_orphans_ = false;
    }
    for (const stream_id& each : gone) {
      recorder::note(recorder::event::hold, device_, nullptr, 0, {.stream = recorder::stream_number(each.value, true)});
    }
    if (must_mark) mark_all();
  } catch (const std::exception& error) {
    report_once("memory of a graph that is gone is not given back yet: ", error.what());
    is_graph_gone_->store(true, std::memory_order_release);
  }
}

/// An event after all that the stream was given so far; null, and reported, if it cannot be had.
std::shared_ptr<event> shared_heap::record_or_report(stream_ref stream, std::shared_ptr<event> reused) const noexcept {
  try {
    if (!accepts_work(stream, device_)) return nullptr;
    if (!reused) return event::record(stream, device_);
    reused->record_again(stream, device_);
    return reused;
  } catch (const std::exception& error) {
    report_once(error.what());  // the blocks stay this stream's own until a later mark covers them
    return nullptr;
  }
}

void shared_heap::place_mark(stream_ref stream, stream_id id, due_mark due) noexcept {
  mark placed{due.epoch, record_or_report(stream, std::move(due.reused))};
  if (placed.happened == nullptr) return;
  const section here(*this);
  here->count_event();
  here->place(id, std::move(placed));
}

void shared_heap::settle(std::optional<stream_id> but) {
  std::vector<std::pair<stream_id, std::vector<mark>>> asked;
  {
    const section here(*this);
    asked = here->marks();
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
  here->make_ready(settled);
}

/// Where a thousand streams came and went: what all of them have left is covered by one event, and everybody's once the
/// device has done that much; where it has not yet, that is seen the next time.
void shared_heap::thin_out(stream_id spared) noexcept {
  try {
    const relaxed_capture_scope relaxed;
    if (!is_capture_underway(device_)) mark_all();
    settle();
  } catch (const std::exception& error) {
    report_once(error.what());  // it is tried again for the next crowd
  }
  const section here(*this);
  here->thin_out(spared);
}

void shared_heap::mark_all() {
  std::vector<claim> claims;
  {
    const section here(*this);
    claims = here->claims_upon_all();
  }
  const auto all_work = event::record_context(device_);
  if (!all_work) return;
  const section here(*this);
  here->count_event();
  for (const claim& c : claims) here->place(c.lender, {c.upto.epoch, all_work});
}

auto shared_heap::settle_unmarked() -> pending {
  pending left;
  {
    const section here(*this);
    left.blocks = here->claims_upon_all();
  }
  if (left.blocks.empty() || is_capture_underway(device_)) return left;
  left.done = event::record_context(device_);
  if (!left.done) return {};  // the driver has no such event, and will not have one later
  const bool is_done = left.done->is_complete();
  const section here(*this);
  here->count_event();
  if (!is_done) return left;
  here->make_ready(left.blocks);
  return {};
}

bool shared_heap::settle_after_all_work() {
  std::vector<claim> claims;
  {
    const section here(*this);
    claims = here->claims_upon_all();
  }
  if (!synchronize_beside_captures(device_)) return false;
  make_ready(claims);
  return true;
}

void shared_heap::make_ready(const std::vector<claim>& settled) {
  const section here(*this);
  here->make_ready(settled);
}

bool shared_heap::settle_own(stream_ref stream, stream_id id, std::vector<claim>& blocks) {
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

}  // namespace cenote::inline v1::pool
