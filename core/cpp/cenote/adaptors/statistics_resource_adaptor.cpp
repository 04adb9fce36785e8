#include "cenote/adaptors/statistics_resource_adaptor.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace cenote {
namespace {

/// A number that no other thread of the process ever has; std::thread::id is given to a later thread again.
std::uint64_t thread_number() noexcept {
  static std::atomic<std::uint64_t> threads{0};
  thread_local const std::uint64_t number = threads.fetch_add(1, std::memory_order_relaxed);
  return number;
}

counter counter_of(const leased_quota::figures& seen) noexcept { return {seen.taken, seen.limit, seen.taken_in_all}; }

}  // namespace

void counter::add(std::int64_t amount) noexcept {
  current += amount;
  total += amount;
  peak = std::max(peak, current);
}

void counter::subtract(std::int64_t amount) noexcept { current -= amount; }

void counter::absorb(const counter& later) noexcept {
  peak = std::max(peak, current + later.peak);
  current += later.current;
  total += later.total;
}

void allocation_counters::allocated(std::size_t size) noexcept {
  bytes.add(static_cast<std::int64_t>(size));
  count.add(1);
}

void allocation_counters::freed(std::size_t size) noexcept {
  bytes.subtract(static_cast<std::int64_t>(size));
  count.subtract(1);
}

void allocation_counters::absorb(const allocation_counters& later) noexcept {
  bytes.absorb(later.bytes);
  count.absorb(later.count);
}

allocation_counters statistics_resource_adaptor::counters() const {
  if (has_scopes_) {
    const std::lock_guard lock(scopes_mutex_);
    const auto own = scopes_.find(thread_number());
    if (own != scopes_.end()) return own->second.back();
  }
  return {counter_of(bytes_.look()), counter_of(count_.look())};
}

allocation_counters statistics_resource_adaptor::push_counters() {
  const allocation_counters top = counters();
  const std::lock_guard lock(scopes_mutex_);
  const auto [own, is_first] = scopes_.try_emplace(thread_number());
  try {
    own->second.emplace_back();
  } catch (...) {
    if (is_first) scopes_.erase(own);
    throw;
  }
  has_scopes_ = true;
  return top;
}

allocation_counters statistics_resource_adaptor::pop_counters() {
  const std::lock_guard lock(scopes_mutex_);
  const auto own = scopes_.find(thread_number());
  if (own == scopes_.end()) throw std::out_of_range("cannot pop the last counter pair: this thread has pushed none");
  scopes& stack = own->second;
  const allocation_counters top = stack.back();
  stack.pop_back();
  if (stack.empty()) {
    scopes_.erase(own);
    has_scopes_ = !scopes_.empty();
  } else {
    stack.back().absorb(top);
  }
  return top;
}

/// Calls `count` for the calling thread's last scope, if it has one.
void statistics_resource_adaptor::count_in_my_scope(void (allocation_counters::*count)(std::size_t) noexcept,
                                                    std::size_t bytes) noexcept {
  const std::lock_guard lock(scopes_mutex_);
  const auto own = scopes_.find(thread_number());
  if (own != scopes_.end()) (own->second.back().*count)(bytes);
}

inline void* statistics_resource_adaptor::counted(void* pointer, std::size_t bytes) noexcept {
  if (pointer == nullptr) return nullptr;
  bytes_.take(static_cast<std::int64_t>(bytes));
  count_.take(1);
  if (has_scopes_.load(std::memory_order_relaxed)) [[unlikely]]  // this thread's own pushes it has seen
    count_in_my_scope(&allocation_counters::allocated, bytes);
  return pointer;
}

void* statistics_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return counted(pass_on(stream, bytes, alignment), bytes);
}

void* statistics_resource_adaptor::do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return counted(next().allocate_at_once(stream, bytes, alignment), bytes);
}

void statistics_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                std::size_t alignment) {
  // Before the memory can be another thread's: it is never counted twice in a peak.
  bytes_.give(static_cast<std::int64_t>(bytes));
  count_.give(1);
  if (has_scopes_.load(std::memory_order_relaxed)) [[unlikely]]
    count_in_my_scope(&allocation_counters::freed, bytes);
  pass_on(stream, pointer, bytes, alignment);
}

}  // namespace cenote
