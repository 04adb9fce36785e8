#include "cenote/resources/stream_timelines.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace cenote {
namespace {

constexpr std::size_t many_timelines = 64;
constexpr std::size_t frees_marked_at_once = 32;  // as many as share a mark otherwise
constexpr std::size_t most_spare_events = 16;

}  // namespace

stream_timelines::stream_timelines() { spare_events_.reserve(most_spare_events); }

stream_timeline* stream_timelines::find(stream_id id) noexcept {
  for (stream_timeline* const recent : recent_) {
    if (recent != nullptr && recent->id() == id) return recent;
  }
  const auto found = timelines_.find(id);
  if (found == timelines_.end()) return nullptr;
  recent_ = {&found->second, recent_[0]};
  return recent_[0];
}

stream_timeline& stream_timelines::meet(stream_id id, block_heap& heap) {
  if (stream_timeline* const known = find(id)) return *known;
  const owner_index owner = heap.create_owner();
  try {
    stream_timeline& made = timelines_.try_emplace(id, id, owner, first_epoch_).first->second;
    captures_ += id.is_capturing() ? 1 : 0;
    return made;
  } catch (const std::bad_alloc&) {
    heap.destroy_owner(owner);
    throw;
  }
}

bool stream_timelines::are_many() const noexcept { return timelines_.size() - captures_ > many_timelines; }

void stream_timelines::drop_idle(stream_id spared, block_heap& heap, front_caches& caches,
                                 std::vector<stream_timeline>& dropped) noexcept {
  for (auto it = timelines_.begin(); it != timelines_.end();) {
    const auto current = it++;
    const stream_id id = current->first;
    if (id == spared || id.is_capturing() || heap.free_bytes(current->second.owner()) != 0) continue;
    try {
      dropped.push_back(std::move(current->second));
    } catch (const std::bad_alloc&) {  // of the host's memory: it is remembered for now
      return;
    }
    caches.forget(id);
    first_epoch_ = std::max(first_epoch_, dropped.back().open_epoch() + 1);
    heap.destroy_owner(dropped.back().owner());
    timelines_.erase(current);
    recent_ = {};
    for (auto& [other_id, other] : timelines_) other.unlearn(id);
  }
}

auto stream_timelines::close_if_worth_a_mark(stream_timeline& timeline, std::size_t pool_bytes) noexcept
    -> std::optional<due_mark> {
  if (timelines_.size() == 1 || timeline.id().is_capturing() || timeline.id() == orphans) return std::nullopt;
  if (frees_to_mark_ != 0) {
    --frees_to_mark_;
  } else if (!timeline.is_worth_a_mark(pool_bytes)) {
    return std::nullopt;
  }
  return close(timeline);
}

auto stream_timelines::close(stream_timeline& timeline) noexcept -> due_mark {
  due_mark due{timeline.close_epoch(), nullptr};
  if (!spare_events_.empty()) {
    due.reused = std::move(spare_events_.back());
    spare_events_.pop_back();
  }
  return due;
}

void stream_timelines::mark_at_once() noexcept { frees_to_mark_ = frees_marked_at_once; }

void stream_timelines::was_awaited() noexcept {
  if (frees_to_mark_ != 0) frees_to_mark_ = frees_marked_at_once;
}

std::optional<mark> stream_timelines::place(stream_id id, const mark& placed) {
  stream_timeline* const timeline = find(id);
  if (timeline == nullptr) return std::nullopt;
  auto superseded = timeline->place_mark(placed);
  keep_event(superseded);
  return superseded;
}

/// Unless somebody still holds the event who is about to wait for it, or to ask it: such copies are made under the
/// pool's lock, from the marks of a timeline, so that there can be no more of them.
void stream_timelines::keep_event(std::optional<mark>& superseded) noexcept {
  if (!superseded || superseded->happened.use_count() != 1 || spare_events_.size() == most_spare_events) return;
  spare_events_.push_back(std::move(superseded->happened));
}

}  // namespace cenote
