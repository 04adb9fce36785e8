// A piece of physical memory of a card: what cuMemCreate makes and cuMemMap shows at an address.
//
// It lives while its handle or a mapping of it does; its end discharges the device and punches the pages out
// (memory/physical_memory.hpp).
//
// A piece that is exported gets a file of its own, whose last page is a label: which card it is of, and how large it
// is. The file is what another process gets, and what it makes a piece of: of the same memory, which counts for the
// card in the process that made it. It stays while any process has it, however the others end.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "sim/device/access_history.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"
#include "sim/memory/backing_file.hpp"

namespace cenote::sim {

struct simulated_device;

struct physical_piece {
  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY); the caller has made room on the card (pool/pool.hpp).
  physical_piece(simulated_device& device, std::size_t bytes, bool exportable);

  /// Of another process's. Throws failure: CUDA_ERROR_INVALID_VALUE for a descriptor of anything else, and
  /// CUDA_ERROR_INVALID_DEVICE, which is written down, for memory of a card that this process does not see.
  static std::shared_ptr<physical_piece> import(int descriptor);

  /// A descriptor for another process. The contents move to a file of the piece's own, which is shown wherever the
  /// piece is mapped. Throws failure: CUDA_ERROR_INVALID_VALUE for a piece that was not made to be exported.
  int export_file();

  ~physical_piece();
  physical_piece(const physical_piece&) = delete;

  simulated_device& device;
  const std::size_t bytes;
  const bool exportable;
  const creation made = made_now();
  std::shared_ptr<const backing_file> file;
  std::uintptr_t offset = 0;
  access_history accesses;

 private:
  physical_piece(simulated_device& device, std::size_t bytes, std::shared_ptr<const backing_file> file);

  void move_to_own_file();

  const bool charged_;
  bool has_own_file_;
};

handle_table<CUmemGenericAllocationHandle, physical_piece>& live_pieces();

}  // namespace cenote::sim
