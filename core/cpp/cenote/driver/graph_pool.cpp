#include "cenote/driver/graph_pool.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cenote/driver/stream_id.hpp"
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
    std::shared_ptr<const graph_pool> pool;
    std::shared_ptr<const filter> takes;
  };

  process_mutex mutex;  // guards all below, and the pools' counts
  std::map<std::pair<int, number>, std::shared_ptr<graph_pool>> pools;
  std::vector<opening> openings;
};

auto graph_pool::all() -> table& {
  static immortal<table> the_one;
  return *the_one;
}

auto graph_pool::same_capture_as(stream_ref origin, int device) -> filter {
  return [origin, device](stream_ref stream) {
    const stream_id its = identify(origin, device);
    return its.is_capturing() && !its.is_nobody() && its.value == identify(stream, device).value;
  };
}

void graph_pool::begin(int device, number which, filter takes) {
  auto shared = std::make_shared<const filter>(std::move(takes));
  table& known = all();
  const std::lock_guard lock(known.mutex);
  known.openings.reserve(known.openings.size() + 1);
  auto found = known.pools.find({device, which});
  if (found == known.pools.end()) {
    found = known.pools.try_emplace({device, which}, std::make_shared<graph_pool>()).first;
  }
  ++found->second->count_;
  known.openings.push_back({device, which, this_thread_number(), found->second, std::move(shared)});
}

void graph_pool::end(int device, number which) {
  table& known = all();
  table::opening closed;  // destroyed without the lock: the filter is the caller's
  const std::lock_guard lock(known.mutex);
  const auto is_it = [&](const table::opening& each) { return each.device == device && each.which == which; };
  const auto is_own = [&](const table::opening& each) { return is_it(each) && each.thread == this_thread_number(); };
  auto last = std::find_if(known.openings.rbegin(), known.openings.rend(), is_own);
  if (last == known.openings.rend()) last = std::find_if(known.openings.rbegin(), known.openings.rend(), is_it);
  if (last == known.openings.rend()) refuse(which, device, " is not open");
  closed = std::move(*last);
  known.openings.erase(std::next(last).base());
}

void graph_pool::release(int device, number which) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  const auto found = known.pools.find({device, which});
  if (found == known.pools.end()) refuse(which, device, " is not known, or was released as often as it was begun");
  if (--found->second->count_ == 0) known.pools.erase(found);
}

std::shared_ptr<const graph_pool> graph_pool::of_capture(stream_ref stream, int device) {
  std::vector<table::opening> open;
  {
    table& known = all();
    const std::lock_guard lock(known.mutex);
    std::ranges::copy_if(known.openings, std::back_inserter(open),
                         [=](const auto& each) { return each.device == device; });
  }
  const auto last = std::find_if(open.rbegin(), open.rend(), [=](const auto& each) { return (*each.takes)(stream); });
  return last != open.rend() ? last->pool : nullptr;
}

}  // namespace cenote::inline v1
