#include "cenote/adaptors/statistics_resource_adaptor.hpp"

#include <algorithm>
#include <stdexcept>

namespace cenote {

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

allocation_counters statistics_resource_adaptor::counters() const {
  const std::lock_guard lock(mutex_);
  return stack_.back();
}

allocation_counters statistics_resource_adaptor::push_counters() {
  const std::lock_guard lock(mutex_);
  const allocation_counters top = stack_.back();
  stack_.emplace_back();
  return top;
}

allocation_counters statistics_resource_adaptor::pop_counters() {
  const std::lock_guard lock(mutex_);
  if (stack_.size() == 1) throw std::out_of_range("cannot pop the last counter pair");
  const allocation_counters top = stack_.back();
  stack_.pop_back();
  stack_.back().bytes.absorb(top.bytes);
  stack_.back().count.absorb(top.count);
  return top;
}

void* statistics_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = next().try_allocate(stream, bytes, alignment);
  if (pointer == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  stack_.back().bytes.add(static_cast<std::int64_t>(bytes));
  stack_.back().count.add(1);
  return pointer;
}

void statistics_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                std::size_t alignment) noexcept {
  next().deallocate(stream, pointer, bytes, alignment);
  const std::lock_guard lock(mutex_);
  stack_.back().bytes.subtract(static_cast<std::int64_t>(bytes));
  stack_.back().count.subtract(1);
}

}  // namespace cenote
