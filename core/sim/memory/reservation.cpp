#include "sim/memory/reservation.hpp"

namespace cenote::sim {

std::map<std::uintptr_t, address_reservation>& reservations() {
  static auto* const by_address = new std::map<std::uintptr_t, address_reservation>;
  return *by_address;
}

}  // namespace cenote::sim
