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

bool Point::reached() const { return queue->done_ >= count; }

bool all_reached(const Points& points) { return first_unreached(points) == nullptr; }

Point WorkQueue::push(Work work) {
  if (waiting_.size() >= capacity) {
    advance({{shared_from_this(), done_ + 1}});
  }
  waiting_.push_back(std::move(work));
  return {shared_from_this(), ++pushed_};
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
  waiting_.pop_front();
  ++done_;
  running_ = false;
  driver().progress.notify_all();
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
