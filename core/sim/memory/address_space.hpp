// The addresses that the simulated driver hands out: host memory that exists only once it is touched.
//
// 1. Address space is reserved from the operating system in chunks (readable, writable, MAP_NORESERVE): 80 GiB of it
//    cost nothing until they are written.
// 2. A piece is taken from the smallest range that has room; what is given back is handed out again.
// 3. Chunks are never returned to the operating system, so that an address in one of them is the simulator's for good:
//    a pointer is either known, or dead, or the host's own.
// 4. retire_all() ends a machine (machine/reset.cpp): the pieces that are out are nobody's from then on. They are
// handed out
//    again once many machines have come after theirs.
//
// Contents: fresh memory is no zeros by promise. The first bytes of a taken piece are overwritten with a pattern, and
// large pieces lose their pages when they are given back; the rest is whatever was there. With `poison_everything`,
// every byte is overwritten, of a piece that is taken and of one that is given back.
//
// Threads: guarded by driver_mutex(). Cost: that of Ranges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "sim/ground/ranges.hpp"

namespace cenote::sim {

/// The host's page: what is mapped, given back and placed (placement.hpp) as a whole.
inline constexpr std::size_t page_bytes = 4096;

class address_space {
 public:
  static constexpr std::size_t chunk_bytes = std::size_t{64} << 30;
  static constexpr std::size_t poisoned_bytes = 256;
  static constexpr unsigned char fresh_poison = 0xa5;
  static constexpr unsigned char freed_poison = 0xdd;

  /// Retired addresses beyond these are handed out again, the oldest first: half of what a process can have.
  static constexpr std::size_t most_retired_bytes = std::size_t{64} << 40;

  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY) where the host has no addresses left.
  std::uintptr_t take(std::size_t bytes, std::size_t alignment);

  /// The same for a piece that is to be mapped over: nothing is written to it.
  std::uintptr_t take_untouched(std::size_t bytes, std::size_t alignment);

  /// Takes this piece where all of it is free; nothing is written to it.
  bool take_exactly(std::uintptr_t address, std::size_t bytes);

  void give_back(std::uintptr_t address, std::size_t bytes);
  void give_back_untouched(std::uintptr_t address, std::size_t bytes);

  /// True for every address of every chunk, whether anything lives there or not.
  bool owns(std::uintptr_t address) const;

  void retire_all();

  /// True for an address of memory that went with a machine.
  bool is_retired(std::uintptr_t address) const { return retired_.contains(address, 1); }

  /// Fills memory that is there and free with the pattern for freed memory, if everything is to be poisoned.
  void poison_freed(std::uintptr_t address, std::size_t bytes) const;

  bool poison_everything = false;

 private:
  struct reserved_chunk {
    std::uintptr_t start;
    std::size_t bytes;
  };
  std::vector<reserved_chunk> chunks_;
  range_set free_;
  range_set out_;
  range_set retired_;
  std::deque<range_set> retired_by_machine_;  ///< the oldest first
  std::size_t retired_bytes_ = 0;
};

/// Makes [address, address + bytes) fresh memory that nothing may touch. Throws failure.
void seal(std::uintptr_t address, std::size_t bytes);

/// Makes [address, address + bytes) fresh memory of the ordinary kind. Throws failure.
void unseal(std::uintptr_t address, std::size_t bytes);

/// The one of the process.
address_space& addresses();

}  // namespace cenote::sim
