#include "sim/device/physical_piece.hpp"

#include "sim/device/device.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/physical_memory.hpp"

namespace cenote::sim {

handle_table<CUmemGenericAllocationHandle, physical_piece>& live_pieces() {
  static auto* const pieces = new handle_table<CUmemGenericAllocationHandle, physical_piece>("memory handle", 0x55);
  return *pieces;
}

physical_piece::physical_piece(simulated_device& device, std::size_t bytes) : device(device), bytes(bytes) {
  require(bytes <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  offset = memory_of_cards().take(bytes);
  device.charge(bytes);
  memory_of_cards().fill(offset, addresses().poison_everything ? bytes : address_space::poisoned_bytes,
                         address_space::fresh_poison);
}

physical_piece::~physical_piece() {
  memory_of_cards().give_back(offset, bytes);
  device.discharge(bytes);
}

}  // namespace cenote::sim
