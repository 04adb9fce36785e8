// Physical memory of the virtual memory interface: what cuMemCreate makes and cuMemMap shows at an address.
//
// One sparse file (backing_file.hpp) stands for the memory of all cards; a piece of physical memory is a range of its
// offsets. Mapping a piece maps that range of the file, so that two addresses of one piece are one memory, and a whole
// card in pieces of 2 MiB needs one file descriptor. A piece that other processes get has a file of its own, as who
// gets a descriptor gets the file (device/physical_piece.hpp).
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "sim/ground/ranges.hpp"
#include "sim/memory/backing_file.hpp"

namespace cenote::sim {

class physical_memory {
 public:
  /// Sizes, offsets and addresses of the virtual memory interface are multiples of this.
  static constexpr std::size_t granularity = std::size_t{2} << 20;

  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY) where the host has no such file.
  std::uintptr_t take(std::size_t bytes);
  void give_back(std::uintptr_t offset, std::size_t bytes);

  /// There is one once something was taken.
  const std::shared_ptr<const backing_file>& file() const { return file_; }

 private:
  /// As far as offsets go: more than all cards hold, so that no order of sizes runs out of places.
  static constexpr std::size_t file_bytes = std::size_t{1} << 50;

  std::shared_ptr<const backing_file> file_;
  range_set free_;
};

/// The one that all cards share.
physical_memory& memory_of_cards();

}  // namespace cenote::sim
