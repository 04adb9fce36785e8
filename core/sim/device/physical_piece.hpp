// A piece of physical memory of a card: what cuMemCreate makes and cuMemMap shows at an address.
//
// It lives while its handle or a mapping of it does; its end discharges the device and punches the pages out
// (memory/physical_memory.hpp).
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>

#include "sim/device/access_history.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"

namespace cenote::sim {

struct simulated_device;

struct physical_piece {
  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY); the caller has made room on the card (pool/pool.hpp).
  physical_piece(simulated_device& device, std::size_t bytes);
  ~physical_piece();
  physical_piece(const physical_piece&) = delete;

  simulated_device& device;
  const std::size_t bytes;
  const creation made = made_now();
  std::uintptr_t offset = 0;
  access_history accesses;
};

handle_table<CUmemGenericAllocationHandle, physical_piece>& live_pieces();

}  // namespace cenote::sim
