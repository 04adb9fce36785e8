#include "cenote/pool/stream_timelines.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace cenote::inline v1::pool {
namespace {

constexpr std::size_t many_timelines = 64;
constexpr std::size_t frees_marked_at_once = 32;  // as many as share a mark otherwise

}  // namespace

stream_timeline* stream_timelines::find_among_all(stream_id id) noexcept {
  const auto found = timelines_.find(id);
  if (found == timelines_.end()) return nullptr;
  recent_ = {&found->second, recent_[0]};
  return recent_[0];
}

stream_timeline& stream_timelines::make(stream_id id, block_heap& heap) {
  const owner_index owner = heap.create_owner();
  try {
    by_owner_.resize(std::max(by_owner_.size(), std::size_t{owner} + 1));
    stream_timeline& made = timelines_.try_emplace(id, id, owner, first_epoch_).first->second;
    by_owner_[owner] = &made;
    captures_ += id.is_capturing() ? 1 : 0;
    ++met_;
    return made;
  } catch (const std::bad_alloc&) {
    heap.destroy_owner(owner);
    throw;
  }
}

bool stream_timelines::are_many() const noexcept { return timelines_.size() - captures_ > many_timelines; }

void stream_timelines::expect_a_crowd() noexcept {
  met_ = 0;
  crowd_ = std::max(least_crowd, timelines_.size());
}

void stream_timelines::drop_idle(stream_id spared, block_heap& heap, front_caches& caches) noexcept {
  bool has_dropped = false;
  for (auto it = timelines_.begin(); it != timelines_.end();) {
    const auto current = it++;
    const stream_id id = current->first;
    stream_timeline& idle = current->second;
    if (id.is_capturing() || heap.free_bytes(idle.owner()) != 0 || id == spared) continue;
    forget_marks(idle, idle.open_epoch());
    first_epoch_ = std::max(first_epoch_, idle.open_epoch() + 1);
    by_owner_[idle.owner()] = nullptr;
    heap.destroy_owner(idle.owner());
    timelines_.erase(current);
    has_dropped = true;
  }
  if (!has_dropped) return;
  recent_ = {};
  // Once for all that were dropped: there may be thousands.
  const auto is_gone = [this](stream_id id) { return !timelines_.contains(id); };
  for (auto& [id, kept] : timelines_) kept.unlearn_if(is_gone);
  caches.forget_if(is_gone);
}

void stream_timelines::drop(stream_id id, block_heap& heap, front_caches& caches) noexcept {
  const auto ended = timelines_.find(id);
  first_epoch_ = std::max(first_epoch_, ended->second.open_epoch() + 1);
  by_owner_[ended->second.owner()] = nullptr;
  heap.destroy_owner(ended->second.owner());
  timelines_.erase(ended);
  --captures_;
  recent_ = {};
  caches.forget_if([id](stream_id each) { return each == id; });
}

void stream_timelines::rename(stream_id from, stream_id to) noexcept {
  auto renamed = timelines_.extract(from);
  first_epoch_ = std::max(first_epoch_, renamed.mapped().open_epoch() + 1);
  renamed.key() = to;
  renamed.mapped().rename(to);
  timelines_.insert(std::move(renamed));
  recent_ = {};
}

/// While there is one stream, nobody would wait for a mark.
bool stream_timelines::is_marked(const stream_timeline& timeline) const noexcept {
  return timelines_.size() > 1 && !timeline.id().is_capturing() && timeline.id() != orphans;
}

auto stream_timelines::close_if_worth_a_mark(stream_timeline& timeline, std::size_t pool_bytes) noexcept
    -> std::optional<due_mark> {
  if (!is_marked(timeline)) return std::nullopt;
  if (frees_to_mark_ != 0) {
    --frees_to_mark_;
  } else if (!timeline.is_worth_a_mark(pool_bytes)) {
    return std::nullopt;
  }
  ++unused_marks_;
  return close(timeline);
}

auto stream_timelines::close(stream_timeline& timeline) noexcept -> due_mark {
  return {timeline.close_epoch(), spares_.take()};
}

void stream_timelines::mark_at_once() noexcept {
  need_marks();
  frees_to_mark_ = frees_marked_at_once;
}

void stream_timelines::was_awaited() noexcept {
  need_marks();
  if (frees_to_mark_ != 0) frees_to_mark_ = frees_marked_at_once;
}

void stream_timelines::place(stream_id id, mark placed) noexcept {
  stream_timeline* const timeline = find(id);
  if (timeline == nullptr) return spares_.keep(std::move(placed.happened));
  if (auto superseded = timeline->place_mark(std::move(placed))) spares_.keep(std::move(superseded->happened));
}

void stream_timelines::forget_marks(stream_timeline& timeline, stamp epoch) noexcept {
  while (auto forgotten = timeline.take_mark(epoch)) spares_.keep(std::move(forgotten->happened));
}

}  // namespace cenote::inline v1::pool
