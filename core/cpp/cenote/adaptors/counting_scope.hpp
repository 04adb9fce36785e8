// A scope: what a part of a program allocates, counted from zero. The statistics adaptor counts in the scopes that the
// running part is in, each of which is open until it is closed, at most once.
//
// A thread keeps those that it is in in a list of its own (statistics_resource_adaptor::push_counters), which ends with
// it. An interpreter that runs several tasks on a thread in turn keeps them with the task, and says which are in force:
// find_scopes_by.
//
// Threads: any; the mutex of the books guards the counters of their scopes, and nothing is called under it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// Signed: what was allocated before the counter started and is freed under it counts below zero.
struct counter {
  std::int64_t current = 0;
  std::int64_t peak = 0;
  std::int64_t total = 0;

  void add(std::int64_t amount) noexcept;
  void subtract(std::int64_t amount) noexcept;
};

struct allocation_counters {
  counter bytes;
  counter count;

  void allocated(std::size_t size) noexcept;
  void freed(std::size_t size) noexcept;
  void not_freed(std::size_t size) noexcept;  ///< what was counted as freed and was not
};

/// State that the scopes of one adaptor share with it; it outlives both.
struct scope_books {
  object_mutex mutex;
  std::atomic<std::size_t> open{0};  // how many scopes are
};

class counting_scope {
 public:
  explicit counting_scope(std::shared_ptr<scope_books> books);
  ~counting_scope() { close_quietly(); }
  counting_scope(const counting_scope&) = delete;
  counting_scope& operator=(const counting_scope&) = delete;

  /// Whether it is one of those scopes, and counts.
  bool is_open_in(const scope_books& books) const noexcept { return books_.get() == &books && is_open(); }
  bool is_open() const noexcept { return is_open_.load(std::memory_order_relaxed); }

  allocation_counters counters() const;

  /// Counts no more; what it has counted. std::out_of_range if it was closed already.
  allocation_counters close();

  /// Under the books' mutex.
  void count_locked(void (allocation_counters::*count)(std::size_t) noexcept, std::size_t bytes) noexcept {
    if (is_open()) (counters_.*count)(bytes);
  }

 private:
  void close_quietly() noexcept {
    if (is_open_.exchange(false, std::memory_order_relaxed)) --books_->open;
  }

  std::shared_ptr<scope_books> books_;
  std::atomic<bool> is_open_{true};
  allocation_counters counters_;  // guarded by the books' mutex
};

/// Those that a thread or task is in, of any adaptors, outermost first.
using counting_scopes = std::vector<std::shared_ptr<counting_scope>>;

/// Gives those of the interpreter's task that runs on this thread; null where none does. Called under no lock.
using scope_finder = const counting_scopes* (*)() noexcept;

/// From now on the adaptors ask `find`, beside the thread's own list.
CENOTE_EXPORT void find_scopes_by(scope_finder find) noexcept;
CENOTE_EXPORT const counting_scopes* scopes_of_running_task() noexcept;

/// The calling thread's own list; null if it has none yet.
CENOTE_EXPORT const counting_scopes* scopes_of_thread() noexcept;

/// The same, made if there is none.
CENOTE_EXPORT counting_scopes& make_scopes_of_thread();

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
