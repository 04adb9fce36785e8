#include "sim/device/allocation.hpp"

#include <cstdint>

#include "sim/device/device.hpp"
#include "sim/ground/current_call.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/ground/violations.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/placement.hpp"

namespace cenote::sim {

std::shared_ptr<memory_block> allocate_block(block_kind kind, simulated_device& device, std::size_t bytes) {
  require(bytes <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
  const std::size_t step = kind == block_kind::managed ? page_bytes : allocation_step;
  const std::size_t held = round_up(bytes, step);
  const bool charged = kind == block_kind::device;
  if (charged) {
    require(held <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  }
  const auto base = addresses().take(held, step);
  if (charged) {
    device.charge(held);
  }
  return live_blocks().insert(
      {.base = base, .bytes = bytes, .held = held, .kind = kind, .device = &device, .pool = {}, .physical = {}});
}

void end_block(memory_block& block) {
  if (block.state == block_state::live) {
    live_blocks().remove(block);
    block.ended_by = current_call();
  }
  block.state = block_state::dead;
}

void free_block(memory_block& block) {
  end_block(block);
  if (block.kind == block_kind::device) {
    block.device->discharge(block.held);
  } else if (block.kind == block_kind::managed) {
    placements().forget(block.base, block.held);
  }
  if (!block.is_registered) {
    addresses().give_back(block.base, block.held);
  }
}

void refuse_free(std::uintptr_t address) {
  violations().add("pointer " + hex(address) +
                   " is not the start of memory that this call may free: unknown, of another kind, or freed before");
  fail(CUDA_ERROR_INVALID_VALUE);
}

}  // namespace cenote::sim
