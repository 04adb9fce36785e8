#include "ranges.hpp"

#include <iterator>

namespace cenote::sim {

void Ranges::insert(std::uintptr_t start, std::size_t bytes) {
  auto next = bytes_at_.lower_bound(start);
  if (next != bytes_at_.end() && next->first == start + bytes) {
    bytes += next->second;
    next = bytes_at_.erase(next);
  }
  if (next != bytes_at_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == start) {
      previous->second += bytes;
      return;
    }
  }
  bytes_at_.emplace_hint(next, start, bytes);
}

std::optional<std::uintptr_t> Ranges::take(std::size_t bytes, std::size_t alignment) {
  for (const auto& [start, held] : bytes_at_) {
    const auto aligned = round_up(start, alignment);
    if (aligned - start < held && held - (aligned - start) >= bytes) {
      take_exactly(aligned, bytes);
      return aligned;
    }
  }
  return std::nullopt;
}

bool Ranges::contains(std::uintptr_t start, std::size_t bytes) const {
  const auto after = bytes_at_.upper_bound(start);
  if (after == bytes_at_.begin()) {
    return false;
  }
  const auto& [range_start, held] = *std::prev(after);
  return start + bytes <= range_start + held;
}

bool Ranges::touches(std::uintptr_t start, std::size_t bytes) const {
  const auto after = bytes_at_.lower_bound(start + bytes);
  if (after == bytes_at_.begin()) {
    return false;
  }
  const auto& [range_start, held] = *std::prev(after);
  return range_start + held > start;
}

bool Ranges::take_exactly(std::uintptr_t start, std::size_t bytes) {
  if (!contains(start, bytes)) {
    return false;
  }
  remove(start, bytes);
  return true;
}

void Ranges::remove(std::uintptr_t start, std::size_t bytes) {
  const std::uintptr_t end = start + bytes;
  while (touches(start, bytes)) {
    const auto last = std::prev(bytes_at_.lower_bound(end));
    const auto [range_start, held] = *last;
    bytes_at_.erase(last);
    if (range_start < start) {
      bytes_at_.emplace(range_start, start - range_start);
    }
    if (range_start + held > end) {
      bytes_at_.emplace(end, range_start + held - end);
    }
  }
}

}  // namespace cenote::sim
