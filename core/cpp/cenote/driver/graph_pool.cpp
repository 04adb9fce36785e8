#include "cenote/driver/graph_pool.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/thread_number.hpp"

namespace cenote::inline v1 {
namespace {

[[noreturn]] void refuse(graph_pool::number which, int device, const char* why) {
  throw std::invalid_argument("the pool of graphs " + std::to_string(which.first) + ", " +
                              std::to_string(which.second) + " of device " + std::to_string(device) + why);
}

}  // namespace

struct graph_pool::table {
  struct opening {
    int device;
    number which;
    std::uint64_t thread;
    std::shared_ptr<graph_pool> pool;
    std::optional<std::uint64_t> capture;  // none before the first that is asked about
  };

  auto last_opening(int device, number which) {
    const auto is_it = [&](const opening& each) { return each.device == device && each.which == which; };
    return std::ranges::find_if(openings.rbegin(), openings.rend(), is_it);
  }

  /// Where a capture belongs that nobody has asked about.
  opening* choose(int device) {
    opening* only = nullptr;
    int free = 0;
    for (auto each = openings.rbegin(); each != openings.rend(); ++each) {
      if (each->device != device || each->capture) continue;
      if (each->thread == this_thread_number()) return &*each;
      only = &*each;
      ++free;
    }
    return free == 1 ? only : nullptr;
  }

  process_mutex mutex;  // guards all below, and what the pools say
  std::map<std::pair<int, number>, std::shared_ptr<graph_pool>> pools;
  std::vector<opening> openings;
};

auto graph_pool::all() -> table& {
  static immortal<table> the_one;
  return *the_one;
}

void graph_pool::begin(int device, number which) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  known.openings.reserve(known.openings.size() + 1);
  auto found = known.pools.find({device, which});
  if (found == known.pools.end()) {
    found = known.pools.try_emplace({device, which}, std::make_shared<graph_pool>()).first;
  }
  ++found->second->count_;
  known.openings.push_back({device, which, this_thread_number(), found->second, std::nullopt});
}

void graph_pool::end(int device, number which) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  const auto last = known.last_opening(device, which);
  if (last == known.openings.rend()) refuse(which, device, " is not open");
  known.openings.erase(std::next(last).base());
}

void graph_pool::release(int device, number which) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  const auto found = known.pools.find({device, which});
  if (found == known.pools.end()) refuse(which, device, " is not known, or was released as often as it was begun");
  graph_pool& pool = *found->second;
  if (pool.count_ == 1 && known.last_opening(device, which) != known.openings.rend()) refuse(which, device, " is open");
  if (--pool.count_ != 0) return;
  pool.is_released_.store(true, std::memory_order_release);
  for (const auto& each : pool.told_) each->store(true, std::memory_order_release);
  known.pools.erase(found);
}

std::shared_ptr<const graph_pool> graph_pool::of_capture(int device, std::uint64_t capture,
                                                         const std::shared_ptr<std::atomic<bool>>& is_any_over) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  const auto is_it = [=](const table::opening& each) { return each.device == device && each.capture == capture; };
  const auto asked = std::ranges::find_if(known.openings, is_it);
  table::opening* const place = asked != known.openings.end() ? &*asked : known.choose(device);
  if (place == nullptr) return nullptr;
  auto& told = place->pool->told_;
  std::erase_if(told, [](const auto& each) { return each.use_count() == 1; });  // of an allocator that is gone
  if (std::ranges::find(told, is_any_over) == told.end()) told.push_back(is_any_over);
  place->capture = capture;
  return place->pool;
}

}  // namespace cenote::inline v1
