// A set of free ranges of numbers (addresses, offsets): the smallest that fits, neighbours merged.
//
//      free:   [ 0x1000, 0x3000 )          [ 0x8000, 0x9000 )
//      take(0x1000, aligned to 0x1000)  ->  0x8000
//      take(0x1800, aligned to 0x1000)  ->  0x1000, and [ 0x2800, 0x3000 ) is left
//
// Invariants: I1 no range is empty; I2 ranges neither overlap nor touch; I3 both maps hold the same ranges.
// Cost: O(log ranges); take looks at more where alignment makes ranges not fit. The lowest of equal ranges is taken, as
// the driver tends to, so that memory that was freed is soon handed out again and a use of it after the free shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace cenote::sim {

class range_set {
 public:
  void insert(std::uintptr_t start, std::size_t bytes);

  /// Takes an aligned piece of that size out of the set: at the beginning of the smallest range that has one.
  std::optional<std::uintptr_t> take(std::size_t bytes, std::size_t alignment = 1);

  /// Takes exactly this piece out of the set; false, and nothing is changed, unless all of it is in there.
  bool take_exactly(std::uintptr_t start, std::size_t bytes);

  /// Takes out whatever of this piece is in the set.
  void remove(std::uintptr_t start, std::size_t bytes);

  bool contains(std::uintptr_t start, std::size_t bytes) const;

  /// True where any part of the piece is in the set.
  bool touches(std::uintptr_t start, std::size_t bytes) const;

  bool empty() const { return bytes_at_.empty(); }
  void clear() {
    bytes_at_.clear();
    by_bytes_.clear();
  }

  /// By start, in order.
  const std::map<std::uintptr_t, std::size_t>& all() const { return bytes_at_; }

 private:
  using by_start = std::map<std::uintptr_t, std::size_t>;

  void add(std::uintptr_t start, std::size_t bytes);
  by_start::iterator erase(by_start::iterator range);

  by_start bytes_at_;
  std::set<std::pair<std::size_t, std::uintptr_t>> by_bytes_;
};

/// `alignment` is a power of two; the caller knows that the sum fits.
constexpr std::size_t round_up(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace cenote::sim
