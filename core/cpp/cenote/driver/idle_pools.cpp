#include "cenote/driver/idle_pools.hpp"

#include <array>
#include <new>

#include "cenote/driver/device.hpp"

namespace cenote {

idle_pools& idle_pools::of(int device) {
  static auto* const leaked = new std::array<idle_pools, max_devices>;  // resources may outlive static objects
  return leaked->at(static_cast<std::size_t>(device));
}

std::size_t idle_pools::size() const noexcept {
  const std::lock_guard lock(mutex_);
  return idle_.size();
}

CUmemPoolHandle_st* idle_pools::take() noexcept {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return nullptr;
  CUmemPoolHandle_st* const pool = idle_.back();
  idle_.pop_back();
  return pool;
}

bool idle_pools::keep(CUmemPoolHandle_st* empty) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    idle_.push_back(empty);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace cenote
