#include "sim/ground/ranges.hpp"

#include <iterator>

namespace cenote::sim {

void range_set::add(std::uintptr_t start, std::size_t bytes) {
  bytes_at_.emplace(start, bytes);
  by_bytes_.emplace(bytes, start);
}

range_set::by_start::iterator range_set::erase(by_start::iterator range) {
  by_bytes_.erase({range->second, range->first});
  return bytes_at_.erase(range);
}

void range_set::insert(std::uintptr_t start, std::size_t bytes) {
  auto next = bytes_at_.lower_bound(start);
  if (next != bytes_at_.end() && next->first == start + bytes) {
    bytes += next->second;
    next = erase(next);
  }
  if (next != bytes_at_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == start) {
      start = previous->first;
      bytes += previous->second;
      erase(previous);
    }
  }
  add(start, bytes);
}

std::optional<std::uintptr_t> range_set::take(std::size_t bytes, std::size_t alignment) {
  for (auto at = by_bytes_.lower_bound({bytes, 0}); at != by_bytes_.end(); ++at) {
    const auto [held, start] = *at;
    const auto aligned = round_up(start, alignment);
    if (aligned - start < held && held - (aligned - start) >= bytes) {
      take_exactly(aligned, bytes);
      return aligned;
    }
  }
  return std::nullopt;
}

bool range_set::contains(std::uintptr_t start, std::size_t bytes) const {
  const auto after = bytes_at_.upper_bound(start);
  if (after == bytes_at_.begin()) {
    return false;
  }
  const auto& [range_start, held] = *std::prev(after);
  return start + bytes <= range_start + held;
}

bool range_set::touches(std::uintptr_t start, std::size_t bytes) const {
  const auto after = bytes_at_.lower_bound(start + bytes);
  if (after == bytes_at_.begin()) {
    return false;
  }
  const auto& [range_start, held] = *std::prev(after);
  return range_start + held > start;
}

bool range_set::take_exactly(std::uintptr_t start, std::size_t bytes) {
  if (!contains(start, bytes)) {
    return false;
  }
  remove(start, bytes);
  return true;
}

void range_set::remove(std::uintptr_t start, std::size_t bytes) {
  const std::uintptr_t end = start + bytes;
  while (touches(start, bytes)) {
    const auto last = std::prev(bytes_at_.lower_bound(end));
    const auto [range_start, held] = *last;
    erase(last);
    if (range_start < start) {
      add(range_start, start - range_start);
    }
    if (range_start + held > end) {
      add(end, range_start + held - end);
    }
  }
}

}  // namespace cenote::sim
