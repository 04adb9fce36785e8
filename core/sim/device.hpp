// One simulated card: its name, its memory and how much of that is taken, and its context.
//
// Device memory is an account, exact to the byte of what was charged; the bytes themselves are host memory
// (address_space.hpp).
//
// Invariant: I1 used_bytes <= memory_bytes.
// Threads: guarded by Driver::mutex.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "context.hpp"
#include "failure.hpp"

namespace cenote::sim {

struct Device {
  Device(int ordinal, std::string name, std::size_t memory_bytes)
      : ordinal(ordinal), name(std::move(name)), memory_bytes(memory_bytes), context(*this) {}

  Device(const Device&) = delete;

  std::size_t free_bytes() const { return memory_bytes - used_bytes; }

  /// Throws Failure(CUDA_ERROR_OUT_OF_MEMORY), and nothing is taken, where the card has no such room.
  void charge(std::size_t bytes) {
    require(bytes <= free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
    used_bytes += bytes;
  }
  void discharge(std::size_t bytes) { used_bytes -= bytes; }

  const int ordinal;
  const std::string name;
  const std::size_t memory_bytes;
  std::size_t used_bytes = 0;
  Context context;
};

/// Whether a card can use the memory of another one. False for a card and itself, as the driver has it.
bool reaches(const Device& card, const Device& other);

/// Throws Failure(CUDA_ERROR_INVALID_DEVICE).
Device& device(CUdevice ordinal);

}  // namespace cenote::sim
