#include "cenote/driver/graph_pool.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cenote/driver/capture.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/thread_number.hpp"

namespace cenote::inline v1 {
namespace {

[[noreturn]] void refuse(graph_pool::number which, int device, const char* why) {
  throw std::invalid_argument("the pool of graphs " + std::to_string(which.first) + ", " +
                              std::to_string(which.second) + " of device " + std::to_string(device) + why);
}

constexpr const char* unknown_capture = "a capture has memory of its own, as it could not be told what pool it is in: ";

}  // namespace

/// A pool that is open for a capture.
class graph_pool::opening {
 public:
  opening(int device, number which, std::shared_ptr<const graph_pool> pool, filter takes,
          std::optional<stream_ref> origin)
      : device(device),
        which(which),
        thread(this_thread_number()),
        pool(std::move(pool)),
        takes_(std::move(takes)),
        taken_(origin) {}

  bool takes(stream_ref stream) {
    const std::lock_guard lock(mutex_);
    if (!takes_) return false;
    try {
      if (!takes_(stream)) return false;
      taken_ = stream;
      return true;
    } catch (const std::exception& error) {
      report_once(unknown_capture, error.what());
    } catch (...) {
      report_once(unknown_capture, "the filter threw something");
    }
    return false;
  }

  /// The filter is not asked again. Returns whether a stream that it took is still being captured.
  bool close() {
    const std::lock_guard lock(mutex_);
    takes_ = nullptr;
    try {
      return taken_ && capture_of(*taken_, device);
    } catch (const std::exception&) {  // it has been destroyed since
      return false;
    }
  }

  const int device;
  const number which;
  const std::uint64_t thread;
  const std::shared_ptr<const graph_pool> pool;

 private:
  object_mutex mutex_;  // guards what follows
  filter takes_;
  std::optional<stream_ref> taken_;  // the origin, or the last that was asked about and is in the capture
};

struct graph_pool::table {
  process_mutex mutex;  // guards all below, and the pools' counts
  std::map<std::pair<int, number>, std::shared_ptr<graph_pool>> pools;
  std::vector<std::shared_ptr<opening>> openings;
};

auto graph_pool::all() -> table& {
  static immortal<table> the_one;
  return *the_one;
}

void graph_pool::begin(int device, number which, filter takes) { begin(device, which, std::move(takes), std::nullopt); }

void graph_pool::begin(int device, number which, stream_ref origin) {
  const std::uint64_t its_thread = origin.is_per_thread_default() ? this_thread_number() : 0;
  const auto is_in_its_capture = [=](stream_ref stream) {
    if (its_thread != 0 && its_thread != this_thread_number()) return false;
    const auto meant = capture_of(origin, device);
    return meant && meant == capture_of(stream, device);
  };
  begin(device, which, is_in_its_capture, origin);
}

void graph_pool::begin(int device, number which, filter takes, std::optional<stream_ref> origin) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  known.openings.reserve(known.openings.size() + 1);
  auto found = known.pools.find({device, which});
  std::shared_ptr<graph_pool> pool = found != known.pools.end() ? found->second : std::make_shared<graph_pool>();
  auto opened = std::make_shared<opening>(device, which, pool, std::move(takes), origin);
  if (found == known.pools.end()) known.pools.try_emplace({device, which}, pool);
  ++pool->count_;
  known.openings.push_back(std::move(opened));
}

bool graph_pool::end(int device, number which) {
  std::shared_ptr<opening> closed;
  {
    table& known = all();
    const std::lock_guard lock(known.mutex);
    const auto is_it = [&](const auto& each) { return each->device == device && each->which == which; };
    const auto is_own = [&](const auto& each) { return is_it(each) && each->thread == this_thread_number(); };
    auto last = std::find_if(known.openings.rbegin(), known.openings.rend(), is_own);
    if (last == known.openings.rend()) last = std::find_if(known.openings.rbegin(), known.openings.rend(), is_it);
    if (last == known.openings.rend()) refuse(which, device, " is not open");
    closed = std::move(*last);
    known.openings.erase(std::next(last).base());
  }
  return closed->close();
}

void graph_pool::release(int device, number which) {
  table& known = all();
  const std::lock_guard lock(known.mutex);
  const auto found = known.pools.find({device, which});
  if (found == known.pools.end()) refuse(which, device, " is not known, or was released as often as it was begun");
  if (--found->second->count_ == 0) known.pools.erase(found);
}

std::shared_ptr<const graph_pool> graph_pool::of_capture(stream_ref stream, int device) {
  std::vector<std::shared_ptr<opening>> open;
  {
    table& known = all();
    const std::lock_guard lock(known.mutex);
    open = known.openings;
  }
  const auto is_its = [=](const auto& each) { return each->device == device && each->takes(stream); };
  const auto last = std::find_if(open.rbegin(), open.rend(), is_its);
  return last != open.rend() ? (*last)->pool : nullptr;
}

}  // namespace cenote::inline v1
