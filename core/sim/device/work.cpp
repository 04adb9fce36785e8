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

void run_outside_the_mutex(const std::function<void()>& host_function) {
  driver_mutex().unlock();
  this_thread().in_host_function = true;
  host_function();
  this_thread().in_host_function = false;
  driver_mutex().lock();
}

}  // namespace

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

}  // namespace cenote::sim
