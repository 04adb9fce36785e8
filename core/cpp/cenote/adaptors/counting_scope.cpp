#include "cenote/adaptors/counting_scope.hpp"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cenote/structures/leased_quota.hpp"

namespace cenote::inline v1 {
namespace {

constinit std::atomic<scope_finder> finder{nullptr};

constinit thread_local counting_scopes* of_thread = nullptr;

/// Ends the list of a thread with the thread, and with it the scopes that were left open.
///
/// Not by a thread_local's destructor: what other thread-locals free at the end of a thread is still counted, and those
/// of POSIX go after them. The main thread's list stays; so does any where the process has used up its keys.
class end_of_thread {
 public:
  end_of_thread() noexcept : is_made_(pthread_key_create(&key_, end) == 0) {}

  void brings_to_an_end(counting_scopes* scopes) const noexcept {
    if (is_made_) pthread_setspecific(key_, scopes);
  }

 private:
  static void end(void* scopes) noexcept {
    of_thread = nullptr;
    delete static_cast<counting_scopes*>(scopes);
  }

  pthread_key_t key_{};
  bool is_made_;
};

const end_of_thread the_end;

}  // namespace

void counter::add(std::int64_t amount) noexcept {
  current += amount;
  total += amount;
  peak = std::max(peak, current);
}

void counter::subtract(std::int64_t amount) noexcept {
  // Wrong sizes of frees, again and again, must not wrap it.
  current = std::max(current, -leased_quota::largest) - std::min(amount, leased_quota::largest);
}

void allocation_counters::allocated(std::size_t size) noexcept {
  bytes.add(static_cast<std::int64_t>(size));
  count.add(1);
}

void allocation_counters::freed(std::size_t size) noexcept {
  bytes.subtract(static_cast<std::int64_t>(size));
  count.subtract(1);
}

void allocation_counters::not_freed(std::size_t size) noexcept {
  bytes.current += static_cast<std::int64_t>(size);
  count.current += 1;
}

counting_scope::counting_scope(std::shared_ptr<scope_books> books) : books_(std::move(books)) { ++books_->open; }

allocation_counters counting_scope::counters() const {
  const std::lock_guard lock(books_->mutex);
  return counters_;
}

allocation_counters counting_scope::close() {
  const std::lock_guard lock(books_->mutex);
  if (!is_open()) throw std::out_of_range("this scope was closed already");
  close_quietly();
  return counters_;
}

void find_scopes_by(scope_finder find) noexcept { finder.store(find, std::memory_order_release); }

const counting_scopes* scopes_of_running_task() noexcept {
  const scope_finder find = finder.load(std::memory_order_acquire);
  return find != nullptr ? find() : nullptr;
}

const counting_scopes* scopes_of_thread() noexcept { return of_thread; }

counting_scopes& make_scopes_of_thread() {
  if (of_thread == nullptr) {
    of_thread = new counting_scopes;
    the_end.brings_to_an_end(of_thread);
  }
  return *of_thread;
}

}  // namespace cenote::inline v1
