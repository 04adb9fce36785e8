// A map from addresses to small numbers: which block starts here?
//
// How it works: open addressing with linear probing over a power-of-two table at most half full; an erased entry is
// closed by shifting its followers back, so that there are no tombstones and a lookup never slows with age.
//
// Invariants
//   I1  every key is found by probing from its home slot without meeting an empty slot
//   I2  size() entries are present, at most half of the table
//
// Threads: none of its own; the owner locks.
// Cost: O(1) expected; 32 to 64 bytes of host memory an entry.
// Source: D. Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm R (deletion with linear probing).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cenote {

class address_map {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  address_map();

  /// Room for one more entry, so that the next insert cannot throw.
  void reserve_one() {
    if (2 * (size_ + 1) > table_.size()) grow();
  }

  /// `address` must not be null and not be present.
  void insert(const void* address, std::uint32_t value);

  /// The value, or `none`.
  std::uint32_t find(const void* address) const noexcept;

  /// The value that was there, or `none`.
  std::uint32_t erase(const void* address) noexcept;

  std::size_t size() const noexcept { return size_; }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  struct entry {
    const void* address = nullptr;  // null: empty
    std::uint32_t value = none;
  };

  std::size_t home(const void* address) const noexcept;
  std::size_t next(std::size_t slot) const noexcept { return (slot + 1) & (table_.size() - 1); }
  std::size_t slot_of(const void* address) const noexcept;
  void grow();

  std::vector<entry> table_;
  std::size_t size_ = 0;
};

}  // namespace cenote
