// What one thread has freed on one stream and may use again there at once: a few blocks of each size, in front of a
// pool's heap. To the heap they are taken.
//
//     shelf for    1 KiB    4 KiB    640 B    …         256 shelves; a size has its place by a hash
//                  block    block    block
//                  block    block                       a stack of blocks of exactly that size, newest on top
//
// How it works
//   1. give() puts a block on the shelf of its size; take() takes the newest from there. Nothing is cut or rounded.
//   2. Of a shelf that is full the older half is spilled, to be freed to the heap; all of it where the shelf is wanted
//      for another size. The whole cache is, when it would hold more than its budget.
//   3. A size that is taken again and again where none is left is worth bringing in numbers: restock() says how many,
//      twice as many each time; half as many once its shelf has been full.
//
// Invariants
//   I1  the blocks of a shelf are taken, cached, not kept, and of the shelf's size
//   I2  bytes() is the sum of their sizes
//
// Threads: one thread, the cache's owner, takes and gives; while the cache's lock is closed to it
// (ground/biased_lock.hpp) it has and keeps nothing, and others may drain. bytes() and hits() are for all. The fields
// of a block that belong to the cache are is_cached, and free_next while that is true; the heap, under the pool's lock,
// leaves them alone. Cost: the block's own entry for take, its place in the directory besides for give; no locked
// instruction. 4 KiB of host memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "cenote/ground/biased_lock.hpp"
#include "cenote/structures/block.hpp"
#include "cenote/structures/block_directory.hpp"

namespace cenote::inline v1 {

class alignas(64) front_cache {  // caches of two threads share no cache line
 public:
  front_cache(block_table& blocks, const block_directory& directory) : blocks_(blocks), directory_(directory) {}

  /// The cache serves this stream from now on; false, and it does not, if it is not empty.
  bool assign(std::uint64_t stream) noexcept;

  bool serves(std::uint64_t stream) const noexcept { return stream_ == stream; }

  /// A block of `bytes`, a multiple of 256, of which so many were not asked for; null if there is none, or if the cache
  /// serves another stream.
  void* take(std::uint64_t stream, std::size_t bytes, std::uint8_t unasked = 0) noexcept {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock) [[unlikely]]
      return nullptr;
    shelf& from = shelf_for(bytes);
    if (from.count == 0 || from.bytes != bytes || stream_ != stream) return nullptr;
    block& taken = blocks_[from.top];
    from.top = taken.free_next;
    --from.count;
    taken.is_cached = false;
    taken.unasked = unasked;
    add(bytes_, std::size_t{0} - bytes);
    add(hits_, std::uint64_t{1});
    return taken.address;
  }

  /// Keeps the block in use at `address` if it may, and returns the bytes that were asked for: 0 if there is none, if
  /// it is kept for a capture or larger than an eighth of `budget`, or if the cache serves another stream. The blocks
  /// that had to go for it are linked by free_next from `*spilled` on; without `spilled` none may have to.
  std::size_t give(std::uint64_t stream, const void* address, std::size_t budget, block_index* spilled) noexcept {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock) [[unlikely]]
      return 0;
    const block_index index = directory_.find(address);
    if (index == no_block || stream_ != stream) return 0;
    block& given = blocks_[index];
    const std::size_t bytes = given.bytes();
    const std::size_t asked = given.asked_bytes();
    if (given.is_cached || given.is_kept || bytes > largest(budget)) return 0;
    shelf& onto = shelf_for(bytes);
    const bool has_room = onto.bytes == bytes && onto.count != depth && this->bytes() + bytes <= budget;
    if (!has_room) [[unlikely]] {
      if (spilled == nullptr) return 0;
      keep_newest(onto, onto.bytes == bytes ? depth / 2 : 0, *spilled);
      onto.bytes = bytes;
      if (this->bytes() + bytes > budget) clear_all(*spilled);
    }
    push(onto, index, given);
    return asked;
  }

  /// Has `put(index, bytes)` keep the block in use at `address`, whatever its size; returns the bytes that were asked
  /// for, or 0 as give() does, and if `put` says false.
  template <class Put>
  std::size_t set_aside(std::uint64_t stream, const void* address, Put&& put) noexcept {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock) [[unlikely]]
      return 0;
    const block_index index = directory_.find(address);
    if (index == no_block || stream_ != stream) return 0;
    block& given = blocks_[index];
    if (given.is_cached || given.is_kept) return 0;
    const std::size_t asked = given.asked_bytes();
    given.is_cached = true;
    if (put(index, given.bytes())) return asked;
    given.is_cached = false;
    return 0;
  }

  /// The block that `take()` has of what was set aside, in use again; null if it has none, or if the cache serves
  /// another stream.
  template <class Take>
  void* take_back(std::uint64_t stream, std::uint8_t unasked, Take&& take) noexcept {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock || stream_ != stream) return nullptr;
    const block_index index = take();
    if (index == no_block) return nullptr;
    block& taken = blocks_[index];
    taken.is_cached = false;
    taken.unasked = unasked;
    return taken.address;
  }

  /// After take() had none: how many blocks of `bytes` are worth bringing from the heap, the asked one included.
  std::uint32_t restock(std::uint64_t stream, std::size_t bytes, std::size_t budget) noexcept;

  /// Keeps a block that was taken for this cache; false if it has no place for it.
  bool stock(std::uint64_t stream, block_index index) noexcept;

  /// Empties the cache; the blocks are linked by free_next from the returned one on.
  block_index drain() noexcept;

  std::size_t blocks() const noexcept;

  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  /// How often take() had a block.
  std::uint64_t hits() const noexcept { return hits_.load(std::memory_order_relaxed); }

  /// The largest block that a cache with this budget keeps.
  static constexpr std::size_t largest(std::size_t budget) noexcept { return budget / shares_of_the_budget; }

  /// Closed, it keeps the owner out: to drain the cache, to look into it, or to change the directory.
  biased_lock& gate() noexcept { return lock_; }

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

 private:
  struct shelf {
    std::size_t bytes = 0;
    block_index top = no_block;
    std::uint16_t count = 0;
    std::uint16_t restock = 1;
  };

  static constexpr std::size_t shelf_count = 256;
  static constexpr std::uint16_t depth = 32;
  static constexpr std::uint16_t most_restocked = depth / 2;
  static constexpr std::size_t shares_of_the_budget = 8;

  shelf& shelf_for(std::size_t bytes) noexcept {
    const std::size_t granules = bytes / block_granularity;  // sizes below 64 KiB have a shelf each
    return shelves_[(granules ^ granules >> 8 ^ granules >> 16) % shelf_count];
  }
  void push(shelf& onto, block_index index, block& pushed) noexcept {
    pushed.is_cached = true;
    pushed.free_next = onto.top;
    onto.top = index;
    ++onto.count;
    add(bytes_, onto.bytes);
  }
  /// Of a figure that one thread changes at a time, and others read.
  template <class Figure>
  static void add(std::atomic<Figure>& figure, Figure amount) noexcept {
    figure.store(figure.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void keep_newest(shelf& of, std::uint16_t count, block_index& spilled) noexcept;
  void clear_all(block_index& spilled) noexcept;

  biased_lock lock_;  // guards all below
  std::uint64_t stream_ = 0;
  std::atomic<std::size_t> bytes_{0};
  std::atomic<std::uint64_t> hits_{0};
  block_table& blocks_;
  const block_directory& directory_;
  std::array<shelf, shelf_count> shelves_;
};

}  // namespace cenote::inline v1
