// Pressure handlers in Python: a thread of Python's runs them, for threads of any kind that need memory.
//
//     allocation without memory ──► ask(): queues a request, and waits so long at the most
//                                                 │
//                              Python's thread ◄──┘  wait() → the handler → answer()
//
// How it works
//   1. A handler in Python is one of the core's (ground/pressure.hpp) that asks here. It waits without the GIL, so that
//      the thread can run. A caller that holds the GIL could not be waited for by anybody: it is skipped.
//   2. A request that the thread has not begun in time is taken back. One that it has begun is left to it.
//   3. The thread's own allocations do not ask.
//
// Threads: any.
#pragma once

#include <Python.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "cenote/ground/pressure.hpp"
#include "python_callable.hpp"

namespace cenote {

struct pressure_request {
  std::uint64_t handler = 0;
  std::size_t bytes = 0;
  int device = 0;
  bool is_begun = false, is_done = false;
  std::optional<std::size_t> freed;
  std::string failure;  // what the handler raised; empty if nothing
};

class pressure_desk {
 public:
  relief ask(std::uint64_t handler, std::size_t bytes, int device, double seconds) {
    if (is_server_) return relief::skipped("a pressure handler allocates this");
    if (!python_is_alive()) return relief::skipped("Python has ended");
    if (PyGILState_Check() != 0) return relief::skipped("the caller holds the interpreter's lock");
    const auto request = std::make_shared<pressure_request>();
    request->handler = handler;
    request->bytes = bytes;
    request->device = device;
    std::unique_lock lock(mutex_);
    if (!is_open_) return relief::skipped("the handlers' thread has ended");
    requests_.push_back(request);
    asked_.notify_one();
    const bool is_done =
        answered_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return request->is_done || !is_open_; });
    if (is_done && request->is_done) return result_of(*request);
    requests_.remove(request);
    if (!is_open_) return relief::skipped("the handlers' thread has ended");
    if (!request->is_begun) return relief::skipped("the handlers' thread was busy for too long");
    relief unknown;
    unknown.why_not = "it was not done in time";
    return unknown;
  }

  /// Waits for the next request; null once the desk was closed. Called by the handlers' thread, without the GIL.
  std::shared_ptr<pressure_request> wait() {
    is_server_ = true;
    std::unique_lock lock(mutex_);
    asked_.wait(lock, [&] { return !requests_.empty() || !is_open_; });
    if (!is_open_) return nullptr;
    const auto request = requests_.front();
    requests_.pop_front();
    request->is_begun = true;
    return request;
  }

  void answer(pressure_request& request, std::optional<std::size_t> freed, const std::string& failure) {
    const std::lock_guard lock(mutex_);
    request.freed = freed;
    request.failure = failure;
    request.is_done = true;
    answered_.notify_all();
  }

  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
    asked_.notify_all();
    answered_.notify_all();
  }

 private:
  static relief result_of(const pressure_request& request) {
    if (!request.failure.empty()) throw std::runtime_error(request.failure);
    relief done;
    done.freed_bytes = request.freed;
    return done;
  }

  inline static thread_local bool is_server_ = false;

  std::mutex mutex_;  // guards all below, and the requests; held for no call
  std::condition_variable asked_, answered_;
  std::list<std::shared_ptr<pressure_request>> requests_;
  bool is_open_ = false;
};

/// The process's; never destroyed. A forked child gets one of its own from renew_pressure_desk().
inline std::atomic<pressure_desk*> present_desk{new pressure_desk};

inline void renew_pressure_desk() { present_desk = new pressure_desk; }

inline pressure_handler_id add_python_handler(const std::string& name, std::uint64_t number, int priority,
                                              double seconds) {
  return add_pressure_handler(
      name,
      [number, seconds](std::size_t bytes, int device) {
        return present_desk.load()->ask(number, bytes, device, seconds);
      },
      priority);
}

inline std::shared_ptr<pressure_request> wait_for_pressure() { return present_desk.load()->wait(); }

inline void answer_pressure(pressure_request& request, std::int64_t freed, const std::string& failure) {
  std::optional<std::size_t> known;
  if (freed >= 0) known = static_cast<std::size_t>(freed);
  present_desk.load()->answer(request, known, failure);
}

inline void open_pressure_desk() { present_desk.load()->open(); }
inline void close_pressure_desk() { present_desk.load()->close(); }

}  // namespace cenote
