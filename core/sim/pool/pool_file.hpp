// The memory of a pool that other processes know: a file, a place in it for each segment, and what they map of it.
//
//     owner     segments   [ block ][  ][ block ]        each shown where the pool has it
//     file      [ segment ]      [ segment ]      [label]
//     another                     [block]                the pages under the one that was exported
//
// The label names the card, and has a number by which an exported pointer is known to be of this pool.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/memory/backing_file.hpp"

namespace cenote::sim {

struct simulated_device;

class pool_file {
 public:
  static std::shared_ptr<pool_file> make(const simulated_device& device);

  /// Another process's. Throws failure: CUDA_ERROR_INVALID_VALUE for a descriptor of anything else,
  /// CUDA_ERROR_INVALID_DEVICE where this process does not see the card.
  static std::shared_ptr<pool_file> open(int descriptor);

  simulated_device& device() const;
  int new_descriptor() const { return file_->new_descriptor(); }

  /// For a segment of the owner's.
  void show_segment(std::uintptr_t base, std::size_t bytes);
  void hide_segment(std::uintptr_t base, std::size_t bytes);

  CUmemPoolPtrExportData export_pointer(std::uintptr_t address, std::size_t bytes) const;

  /// What an exported pointer names, shown at an address of this process. Throws failure(CUDA_ERROR_INVALID_VALUE) for
  /// one of another pool.
  struct shown_block {
    std::uintptr_t address;
    std::size_t bytes;
  };
  shown_block show(const CUmemPoolPtrExportData& exported);
  void hide(std::uintptr_t address);

  /// Nothing is shown any more.
  void hide_all();

 private:
  explicit pool_file(std::shared_ptr<const backing_file> file) : file_(std::move(file)) {}

  std::shared_ptr<const backing_file> file_;
  std::uint64_t key_ = 0;
  std::string card_;
  range_set free_;
  struct segment_place {
    std::uintptr_t offset;
    std::size_t bytes;
  };
  std::map<std::uintptr_t, segment_place> segments_;  ///< by base
  struct shown_pages {
    std::uintptr_t base;
    std::size_t bytes;
  };
  std::map<std::uintptr_t, shown_pages> shown_;  ///< by the address of the block in them
};

}  // namespace cenote::sim
