// The simulated machine: read from the environment variable CENOTE_SIM at cuInit, or told by cenote_sim_reset.
//
//   CENOTE_SIM="devices=2,memory=80GiB,driver=12040,name=my card,pageable=1,peers=0,virtual_memory=0,mig=2,poison=1"
//
//   devices  how many (0: cuInit answers CUDA_ERROR_NO_DEVICE)            default 1, at most 64
//   memory   of each device; units B, KB … TB (1000s) and KiB … TiB       default 80GiB, at most 4TiB
//   driver   the CUDA version that the driver implements (1000 a major)   default 13000
//   name     of each device                                               default "cenote simulated device"
//   pageable 1: the devices may use any memory of the host, such as       default 0
//            malloc's, as on a Grace Hopper or with HMM; 0: only what the driver handed out, as in most servers
//   mig      how many MIG instances each card is split into, 0 to 7, of   default 0: none
//            equal memory; a process sees one of them at most
//   poison   1: every byte of fresh and of freed memory is overwritten    default 0
//   peers    0: no device can use the memory of another one; 1: each can     default 1
//   virtual_memory  0: no device has virtual memory, as a vGPU may not       default 1
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace cenote::sim {

inline constexpr int max_devices = 64;

struct machine_settings {
  int devices = 1;
  std::size_t memory_bytes = std::size_t{80} << 30;
  int driver_version = 13000;
  std::string name = "cenote simulated device";
  bool pageable = false;
  bool poison = false;
  int mig = 0;  ///< instances of each card; 0: it is not split
  bool peers = true;
  bool virtual_memory = true;
};

/// Each key once at most. Throws std::invalid_argument with one line that says what is wrong and what is known.
machine_settings parse_settings(std::string_view text);

/// From the environment; the defaults where the variable is not set. Throws as parse_settings does, and names it.
machine_settings settings_from_environment();

}  // namespace cenote::sim
