// Addresses that a program has reserved to map physical memory at: cuMemAddressReserve.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "sim/ground/made.hpp"

namespace cenote::sim {

struct address_reservation {
  std::size_t bytes;
  creation made;
};

/// By address.
std::map<std::uintptr_t, address_reservation>& reservations();

}  // namespace cenote::sim
