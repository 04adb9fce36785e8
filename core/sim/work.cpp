#include "work.hpp"

#include <algorithm>
#include <utility>

#include "driver.hpp"

namespace cenote::sim {
namespace {

const Point* first_unreached(const Points& points) {
  const auto at = std::find_if(points.begin(), points.end(), [](const Point& point) { return !point.reached(); });
  return at == points.end() ? nullptr : &*at;
}

void run_outside_the_mutex(const std::function<void()>& host_function) {
  driver().mutex.unlock();
  this_thread().in_host_function = true;
  host_function();
  this_thread().in_host_function = false;
  driver().mutex.lock();
}

}  // namespace

Points ends_of(const Queues& queues) {
  Points points;
  points.reserve(queues.size());
  for (const auto& [id, queue] : queues) {
    points.push_back(queue->end());
  }
  return points;
}

bool Point::reached() const {
  queue->pass_marks();
  return queue->done_ >= count;
}

bool all_reached(const Points& points) { return first_unreached(points) == nullptr; }

Point WorkQueue::push(Work work) {
  pass_marks();
  if (waiting_.size() >= capacity) {
    advance({{shared_from_this(), done_ + 1}});
  }
  note_new_work();
  waiting_.push_back(std::move(work));
  return {shared_from_this(), ++pushed_};
}

void WorkQueue::note_new_work() {
  if (kind == QueueKind::marks) {
    return;
  }
  busy_.all.try_emplace(id, shared_from_this());
  busy_.new_to_marks.try_emplace(id, shared_from_this());
  if (kind == QueueKind::blocking) {
    busy_.new_to_legacy.try_emplace(id, shared_from_this());
  }
}

Point WorkQueue::end() { return {shared_from_this(), pushed_}; }

void WorkQueue::run_front() {
  running_ = true;
  Work& work = waiting_.front();  // a deque: stays in place while others push
  if (work.is_host_function) {
    run_outside_the_mutex(work.action);
  } else if (work.action) {
    work.action();
  }
  running_ = false;
  pop_front();
  driver().progress.notify_all();
}

/// The caller holds on to this queue, which may be kept by nothing else any more.
void WorkQueue::pop_front() {
  waiting_.pop_front();
  ++done_;
  if (waiting_.empty()) {
    busy_.all.erase(id);
    busy_.new_to_marks.erase(id);
    busy_.new_to_legacy.erase(id);
  }
}

void WorkQueue::pass_marks() {
  while (kind == QueueKind::marks && !waiting_.empty() && all_reached(waiting_.front().after)) {
    pop_front();
  }
}

void advance(const Points& points) {
  for (const Point& wanted : points) {
    std::vector<Point> path{wanted};
    while (!path.empty()) {
      WorkQueue& queue = *path.back().queue;
      if (path.back().reached()) {
        path.pop_back();
      } else if (const Point* before = first_unreached(queue.front().after)) {
        path.push_back(*before);
      } else if (queue.running_) {
        driver().progress.wait(driver().mutex, [&] { return !queue.running_; });
      } else {
        queue.run_front();
      }
    }
  }
}

void step(const Points& points) {
  const Point* next = first_unreached(points);
  if (next == nullptr) {
    return;
  }
  std::shared_ptr<WorkQueue> queue;
  do {
    queue = next->queue;
    next = first_unreached(queue->front().after);
  } while (next != nullptr);
  if (!queue->running_) {
    queue->run_front();
  }
}

}  // namespace cenote::sim
