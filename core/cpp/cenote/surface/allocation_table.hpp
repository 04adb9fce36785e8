// The allocations of one shard of the ledger, by address: an open-addressed table.
//
//     place   0      1      2      3      4      5      6      7
//            [  ]   [a ]   [b ]   [c ]   [  ]   [d ]   [  ]   [  ]      b and c have the hash 1 too
//
// How it works
//   1. An entry lies at the first free place from that of its hash on, and is looked for from there to the next free
//   one.
//   2. Where an entry is removed, those behind it that could lie there move up: no mark of it stays.
//   3. The table does not grow by itself: the caller brings larger room, so that no memory is allocated under a lock.
//
// Invariants
//   I1  at most three of four places are taken
//   I2  between an entry and the place of its hash no place is free, and no address is entered twice
//   I3  a free place holds no resource
//
// Threads: none of its own.
// Cost: O(1); 48 bytes a place, never given back.
// Source: D. Knuth, The Art of Computer Programming, vol. 3, 1973, 6.4: algorithms L and R.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/surface/client.hpp"
#include "cenote/surface/resource_place.hpp"

namespace cenote::inline v1 {

struct allocation {
  void* pointer = nullptr;  ///< null: none
  resource_hold resource;   ///< empty: the client frees the block itself
  std::size_t bytes = 0;
  stream_id stream;
  std::uint8_t client = 0;
  std::uint8_t device = 0;
  tag_index tag = 0;
  bool is_shared = false;          ///< used on other streams too
  bool is_used_by_others = false;  ///< on streams of other devices
  std::uint8_t log2_alignment = std::countr_zero(default_alignment);

  std::size_t alignment() const noexcept { return std::size_t{1} << log2_alignment; }

  recorder::whose whose() const noexcept { return {recorded_stream(), tag, client}; }

  std::uint64_t recorded_stream() const noexcept {
    return recorder::stream_number(stream.value, stream.is_capturing());
  }
};
static_assert(sizeof(allocation) == 48);

class allocation_table {
 public:
  /// Of an address. The table uses bits 32 to 57, so that the upper ones can choose between tables.
  static std::uint64_t hash(const void* pointer) noexcept {
    constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing
    return reinterpret_cast<std::uintptr_t>(pointer) * golden_ratio;
  }

  std::size_t size() const noexcept { return size_; }
  bool has_room() const noexcept { return !places_.empty() && 4 * (size_ + 1) <= 3 * (mask_ + 1); }

  /// How many places to bring when there is no room.
  std::size_t places_to_bring() const noexcept { return places_.empty() ? first_places : 2 * places_.size(); }

  /// Moves into `room`, empty places by the power of two, if that is larger; what it leaves, empty too, is there then.
  void move_into(std::vector<allocation>& room) noexcept;

  /// Null if it is not there; good until the next change.
  allocation* find(const void* pointer) noexcept;

  /// There must be room. `made` is then what was entered for that address before, or none.
  void insert(allocation& made) noexcept;

  /// Takes out what find() has found.
  allocation remove(allocation& found) noexcept;

  /// Calls `body` with each that is there.
  template <class Body>
  void for_each(Body&& body) const {
    for (const allocation& each : places_) {
      if (each.pointer != nullptr) body(each);
    }
  }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  static constexpr std::size_t first_places = 16;

  std::size_t home_of(const void* pointer) const noexcept { return hash(pointer) >> 32 & mask_; }

  std::vector<allocation> places_;  // none, or a power of two
  std::size_t mask_ = 0;            // one less than the places, where there are any
  std::size_t size_ = 0;
};

}  // namespace cenote::inline v1
