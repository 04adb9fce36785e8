// State that the functions of the control interface (cenote_sim.h) share.
#pragma once

#include <mutex>

#include "sim/ground/driver_mutex.hpp"

namespace cenote::sim {

inline std::unique_lock<std::mutex> lock_driver() { return std::unique_lock(driver_mutex()); }

}  // namespace cenote::sim
