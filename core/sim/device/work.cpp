#include "sim/device/work.hpp"

#include <algorithm>
#include <utility>

#include "sim/device/thread_state.hpp"
#include "sim/ground/driver_mutex.hpp"

namespace cenote::sim {
namespace {

const queue_point* first_unreached(const queue_points& points) {
  const auto at = std::find_if(points.begin(), points.end(), [](const queue_point& point) { return !point.reached(); });
  return at == points.end() ? nullptr : &*at;
}

}  // namespace

void run_outside_the_mutex(const std::function<void()>& host_function) {
  driver_mutex().unlock();
  this_thread().in_host_function = true;
  host_function();
  this_thread().in_host_function = false;
  driver_mutex().lock();
}

queue_points ends_of(const queue_map& queues) {
  queue_points points;
  points.reserve(queues.size());
  for (const auto& [id, queue] : queues) {
    points.push_back(queue->end());
  }
  return points;
}

bool queue_point::reached() const {
  queue->pass_marks();
  return queue->done_ >= count;
}

bool all_reached(const queue_points& points) { return first_unreached(points) == nullptr; }

queue_point work_queue::push(queued_work work) {
  pass_marks();
  if (waiting_.size() >= capacity) {
    advance({{shared_from_this(), done_ + 1}});
  }
  note_new_work();
  waiting_.push_back(std::move(work));
  return {shared_from_this(), ++pushed_};
}

void work_queue::note_new_work() {
  if (kind == queue_kind::marks) {
    return;
  }
  busy_.all.try_emplace(id, shared_from_this());
  busy_.new_to_marks.try_emplace(id, shared_from_this());
  if (kind == queue_kind::blocking) {
    busy_.new_to_legacy.try_emplace(id, shared_from_this());
  }
}

queue_point work_queue::end() { return {shared_from_this(), pushed_}; }

void work_queue::run_front() {
  running_ = true;
  queued_work& work = waiting_.front();  // a deque: stays in place while others push
  if (work.is_host_function) {
    run_outside_the_mutex(work.action);
  } else if (work.action) {
    work.action();
  }
  running_ = false;
  pop_front();
  progress().notify_all();
}

/// The caller holds on to this queue, which may be kept by nothing else any more.
void work_queue::pop_front() {
  waiting_.pop_front();
  ++done_;
  if (waiting_.empty()) {
    busy_.all.erase(id);
    busy_.new_to_marks.erase(id);
    busy_.new_to_legacy.erase(id);
  }
}

void work_queue::pass_marks() {
  while (kind == queue_kind::marks && !waiting_.empty() && all_reached(waiting_.front().after)) {
    pop_front();
  }
}

void advance(const queue_points& points) {
  for (const queue_point& wanted : points) {
    std::vector<queue_point> path{wanted};
    while (!path.empty()) {
      work_queue& queue = *path.back().queue;
      if (path.back().reached()) {
        path.pop_back();
      } else if (const queue_point* before = first_unreached(queue.front().after)) {
        path.push_back(*before);
      } else if (queue.running_) {
        progress().wait(driver_mutex(), [&] { return !queue.running_; });
      } else {
        queue.run_front();
      }
    }
  }
}

void step(const queue_points& points) {
  const queue_point* next = first_unreached(points);
  if (next == nullptr) {
    return;
  }
  std::shared_ptr<work_queue> queue;
  do {
    queue = next->queue;
    next = first_unreached(queue->front().after);
  } while (next != nullptr);
  if (!queue->running_) {
    queue->run_front();
  }
}

namespace {

void add_point(vector_of_points& clock, const queue_point& point) {
  if (point.queue->kind == queue_kind::marks) {
    return;  // nothing in there touches memory; what it comes after is added by its own clock
  }
  const auto [at, added] = clock.try_emplace(point.queue->id, point);
  if (!added && at->second.count < point.count) {
    at->second.count = point.count;
  }
}

}  // namespace

void work_queue::make_next_clock() {
  const std::uint64_t count = clocked() + 1;
  queued_work& work = piece(count);
  const auto previous = count - 1 > done_ ? piece(count - 1).clock : std::make_shared<const vector_of_points>();
  work.clock = previous;
  if (!all_reached(work.after)) {
    auto clock = std::make_shared<vector_of_points>(*previous);
    std::erase_if(*clock, [](const auto& entry) { return entry.second.reached(); });
    for (const queue_point& point : work.after) {
      if (point.reached()) {
        continue;
      }
      add_point(*clock, point);
      for (const auto& [id, before] : *point.queue->piece(point.count).clock) {
        add_point(*clock, before);
      }
    }
    work.clock = std::move(clock);
  }
  clocked_ = count;
}

void make_clocks(const queue_point& wanted) {
  queue_points path{wanted};
  while (!path.empty()) {
    work_queue& queue = *path.back().queue;
    if (path.back().reached() || queue.has_clock(path.back().count)) {
      path.pop_back();
      continue;
    }
    const queue_points& after = queue.piece(queue.clocked() + 1).after;
    const auto before = std::find_if(after.begin(), after.end(), [](const queue_point& point) {
      return !point.reached() && !point.queue->has_clock(point.count);
    });
    if (before == after.end()) {
      queue.make_next_clock();
    } else {
      path.push_back(*before);
    }
  }
}

bool comes_before(const queue_point& earlier, const queue_point& later) {
  if (earlier.reached()) {
    return true;
  }
  if (earlier.queue == later.queue) {
    return earlier.count <= later.count;
  }
  if (later.reached()) {
    return false;
  }
  make_clocks(later);
  const vector_of_points& clock = *later.queue->piece(later.count).clock;
  const auto known = clock.find(earlier.queue->id);
  return known != clock.end() && known->second.count >= earlier.count;
}

}  // namespace cenote::sim
