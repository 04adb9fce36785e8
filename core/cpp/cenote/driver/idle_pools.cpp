#include "cenote/driver/idle_pools.hpp"

#include <array>
#include <new>

#include "cenote/driver/device.hpp"
#include "cenote/ground/immortal.hpp"

namespace cenote {

idle_pools& idle_pools::of(int device) {
  static immortal<std::array<idle_pools, max_devices>> all;  // resources may outlive static objects
  return all->at(static_cast<std::size_t>(device));
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
