// One simulated card, as the process counts them: its memory and how much of that is taken, and its context.
//
// It exists for the rest of the process once the process has seen a card of that number; another machine in its place
// (machine/reset.cpp) gives it another name and size, or leaves it out.
//
// Device memory is an account, exact to the byte of what was charged; the bytes themselves are host memory
// (memory/address_space.hpp).
//
// Invariant: I1 used_bytes <= card.memory_bytes.
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "sim/device/context.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/visible_devices.hpp"

namespace cenote::sim {

struct simulated_device {
  explicit simulated_device(int ordinal) : ordinal(ordinal), context(*this) {}

  simulated_device(const simulated_device&) = delete;

  std::size_t free_bytes() const { return card.memory_bytes - used_bytes; }

  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY), and nothing is taken, where the card has no such room.
  void charge(std::size_t bytes) {
    require(bytes <= free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
    used_bytes += bytes;
  }
  void discharge(std::size_t bytes) { used_bytes -= bytes; }

  const int ordinal;
  bool present = false;
  card_description card;
  std::size_t used_bytes = 0;
  primary_context context;
};

/// Whether a card can use the memory of another one. False for a card and itself, as the driver has it.
bool reaches(const simulated_device& card, const simulated_device& other);

/// That the process sees, by ordinal.
std::vector<simulated_device*>& devices();

/// Those of earlier machines included.
std::vector<std::unique_ptr<simulated_device>>& all_devices();

/// Throws failure(CUDA_ERROR_INVALID_DEVICE).
simulated_device& device(CUdevice ordinal);

}  // namespace cenote::sim
