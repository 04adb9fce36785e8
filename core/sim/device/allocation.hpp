// Device, pinned and managed memory: allocated at once, freed only after all work of the device is done.
//
// Device memory is charged in steps of 512 bytes, the driver's own alignment; pinned and managed memory live on the
// host and are charged to no card, so that managed memory may be larger than it. Managed memory has whole pages for
// itself, as it is placed by page (memory/placement.hpp).
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "sim/device/device.hpp"
#include "sim/memory/block.hpp"

namespace cenote::sim {

/// Alignment of every address that the driver hands out, and the step in which memory is charged.
inline constexpr std::size_t allocation_step = 512;

/// More than any machine has; sizes above it are refused before any arithmetic is done on them.
inline constexpr std::size_t max_allocation_bytes = std::size_t{1} << 46;

/// Throws failure(CUDA_ERROR_OUT_OF_MEMORY); the caller has made room on the card (pool/pool.hpp). Pooled and mapped
/// blocks are made by their own kinds.
std::shared_ptr<memory_block> allocate_block(block_kind kind, simulated_device& device, std::size_t bytes);

/// Makes the block dead, and unknown to the driver.
void end_block(memory_block& block);

/// Ends the block and gives the memory back at once; the caller has waited for the work that uses it. Not for mapped
/// blocks nor for those of a pool.
void free_block(memory_block& block);

/// Writes down and refuses a pointer that is not the start of a live block that the current call may free.
[[noreturn]] void refuse_free(std::uintptr_t address);

}  // namespace cenote::sim
