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

allocation_counters* statistics_resource_adaptor::scope_locked() noexcept {
  if (scopes_.empty()) return nullptr;
  const auto own = scopes_.find(thread_number());
  return own == scopes_.end() ? nullptr : &own->second.back();
}

allocation_counters statistics_resource_adaptor::counters() const {
  const std::lock_guard lock(mutex_);
  const auto own = scopes_.find(thread_number());
  return own == scopes_.end() ? base_ : own->second.back();
}

allocation_counters statistics_resource_adaptor::push_counters() {
  const std::lock_guard lock(mutex_);
  const auto own = scopes_.find(thread_number());
  if (own == scopes_.end()) {
    scopes_.emplace(thread_number(), scopes(1));
    return base_;
  }
  const allocation_counters top = own->second.back();
  own->second.emplace_back();
  return top;
}

allocation_counters statistics_resource_adaptor::pop_counters() {
  const std::lock_guard lock(mutex_);
  const auto own = scopes_.find(thread_number());
  if (own == scopes_.end()) throw std::out_of_range("cannot pop the last counter pair: this thread has pushed none");
  scopes& stack = own->second;
  const allocation_counters top = stack.back();
  stack.pop_back();
  if (stack.empty()) {
    scopes_.erase(own);
  } else {
    stack.back().absorb(top);
  }
  return top;
}

void* statistics_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = next().try_allocate(stream, bytes, alignment);
  if (pointer == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  base_.allocated(bytes);
  if (allocation_counters* const scope = scope_locked()) scope->allocated(bytes);
  return pointer;
}

void statistics_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                std::size_t alignment) noexcept {
  {
    // Before the memory can be another thread's: it is never counted twice in a peak.
    const std::lock_guard lock(mutex_);
    base_.freed(bytes);
    if (allocation_counters* const scope = scope_locked()) scope->freed(bytes);
  }
  next().deallocate(stream, pointer, bytes, alignment);
}

}  // namespace cenote
