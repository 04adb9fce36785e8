#include "sim/device/device.hpp"

#include "sim/ground/failure.hpp"
#include "sim/ground/machine.hpp"

namespace cenote::sim {

std::vector<simulated_device*>& devices() {
  static auto* const seen = new std::vector<simulated_device*>;
  return *seen;
}

std::vector<std::unique_ptr<simulated_device>>& all_devices() {
  static auto* const all = new std::vector<std::unique_ptr<simulated_device>>;
  return *all;
}

simulated_device& device(CUdevice ordinal) {
  require(ordinal >= 0 && static_cast<std::size_t>(ordinal) < devices().size(), CUDA_ERROR_INVALID_DEVICE);
  return *devices()[static_cast<std::size_t>(ordinal)];
}

bool reaches(const simulated_device& card, const simulated_device& other) {
  return &card != &other && this_machine().settings.peers;
}

}  // namespace cenote::sim
