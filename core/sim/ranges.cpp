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

bool Ranges::take_exactly(std::uintptr_t start, std::size_t bytes) {
  auto at = bytes_at_.upper_bound(start);
  if (at == bytes_at_.begin()) {
    return false;
  }
  --at;
  const auto range_start = at->first;
  const auto range_end = range_start + at->second;
  if (start + bytes > range_end) {
    return false;
  }
  bytes_at_.erase(at);
  if (start > range_start) {
    bytes_at_.emplace(range_start, start - range_start);
  }
  if (start + bytes < range_end) {
    bytes_at_.emplace(start + bytes, range_end - start - bytes);
  }
  return true;
}

}  // namespace cenote::sim
