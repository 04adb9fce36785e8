// Which block in use starts at this address?
//
//     address  →  place by a hash  │ b.9│    │b.12│ b.7│ b.3│    │    │      a word a place: the block and a tag
//                                            └ home of 7, 12 and 3: the later ones lie further on
//
// How it works: a hash table with open addressing. An entry lies at its address's home or further on, with no vacant
// place between; a word holds the block's index and a tag, the low 32 bits of its address in granules, which the home
// is a hash of: so that hardly any other block need be looked at. Taking an entry out moves those back that could not
// lie at their home. The table doubles when it is three quarters full; the old one is kept until nobody can be reading
// it any more.
//
// Invariants
//   I1  each entry is found from its home on without passing a vacant place
//   I2  size() entries, at most three quarters of the places
//
// Threads: find() may run beside everything but release_outgrown(). It then never returns a wrong block, but may miss
// one whose entry is being moved: who must be sure asks where nothing changes. All others need outside locking.
// Cost: O(1); one word is read where the block is live. 11 to 22 bytes of host memory a block.
// Source: D. E. Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cenote/ground/host_table.hpp"
#include "cenote/structures/block.hpp"

namespace cenote::inline v1 {

class block_directory {
 public:
  /// Throws std::bad_alloc.
  explicit block_directory(const block_table& blocks);

  /// Room for one more, so that the next insert cannot fail. Throws std::bad_alloc, and nothing has changed.
  void reserve_one() {
    if (size_ >= most_entries(places_)) grow();
  }

  /// Enters the block, which is not entered, or takes it out.
  void insert(block_index block) noexcept;
  void remove(block_index block) noexcept;

  /// The block that starts at `address`, which may be any; no_block if none does.
  block_index find(const void* address) const noexcept {
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    if (value % block_granularity != 0) return no_block;
    const table& in = *current_.load(std::memory_order_acquire);
    const std::uint32_t wanted = tag_of(address);
    for (std::size_t place = in.home_of(wanted);; place = in.after(place)) {
      const std::uint64_t word = in.read(place);
      if (word == vacant) return no_block;
      if (tag_of(word) == wanted && blocks_[block_of(word)].address == address) return block_of(word);
    }
  }

  std::size_t size() const noexcept { return size_; }

  /// Whether there is an old table; it may be released while nobody is in find().
  bool has_outgrown() const noexcept { return tables_.size() > 1; }
  void release_outgrown() noexcept { tables_.erase(tables_.begin(), tables_.end() - 1); }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  static constexpr std::uint64_t vacant = 0;
  static constexpr std::size_t first_places = 1024;

  struct table {
    host_table<std::uint64_t> words;
    std::size_t mask;
    unsigned shift;  // of a hash, to the number of a place

    std::size_t home_of(std::uint32_t tag) const noexcept {
      constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing
      return static_cast<std::size_t>((tag * golden_ratio) >> shift);
    }
    std::size_t after(std::size_t place) const noexcept { return (place + 1) & mask; }
    // Who reads a word may look at its block, and the first one of a segment brings the segment with it.
    std::uint64_t read(std::size_t place) const noexcept {
      return std::atomic_ref(words[place]).load(std::memory_order_acquire);
    }
    void write(std::size_t place, std::uint64_t word) const noexcept {
      std::atomic_ref(words[place]).store(word, std::memory_order_release);
    }
  };

  static constexpr std::size_t most_entries(std::size_t places) noexcept { return places / 4 * 3; }
  static block_index block_of(std::uint64_t word) noexcept { return static_cast<block_index>(word >> 32) - 1; }
  static std::uint32_t tag_of(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word); }
  static std::uint32_t tag_of(const void* address) noexcept {
    return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(address) / block_granularity);
  }

  static void put(const table& into, std::uint64_t word) noexcept;
  void add_table(std::size_t places);
  void grow();

  const block_table& blocks_;
  std::vector<std::unique_ptr<table>> tables_;  // the last is the current one
  std::atomic<const table*> current_{nullptr};
  std::size_t places_ = 0;
  std::size_t size_ = 0;
};

}  // namespace cenote::inline v1
