// Where pools are: a kind of memory at a location, with its default pool and its current one.
//
// 1. Places that have pools, with CUDA 13: pinned and managed memory of each card, of the host and of each of its NUMA
//    nodes, and managed memory that is preferred nowhere. "Pinned" on a card is what a driver's pool has always been.
// 2. Every place has a default pool from cuInit on, which cannot be destroyed. The current pool is the default one
//    until another is set; where that is destroyed, it is the default one again.
// 3. A pool that a program makes is in one of these places. One more is allowed to it alone: managed memory on the NUMA
//    node of the thread.
//
// The pools of cuDeviceGetMemPool and cuMemAllocAsync are those of a card's pinned memory.
//
// Threads: guarded by Driver::mutex.
// Source: the answers of an H100, driver 580.159.04, for every pair of location and type.
#pragma once

#include <compare>
#include <map>

#include "location.hpp"

namespace cenote::sim {

struct simulated_device;

/// The first CUDA version with pools elsewhere than in the pinned memory of a card.
inline constexpr int first_with_pool_places = 13000;

struct pool_place {
  CUmemAllocationType type;
  memory_location location;

  bool on_device() const { return location.type == CU_MEM_LOCATION_TYPE_DEVICE; }

  auto operator<=>(const pool_place&) const = default;
};

struct place_pools {
  CUmemoryPool initial = nullptr;  ///< the default one
  CUmemoryPool current = nullptr;
};

using pool_place_map = std::map<pool_place, place_pools>;

/// Once the devices are there. Those of an earlier machine are its again; those of a card that is gone are lost.
void make_default_pools();

/// What cuMemAllocAsync takes memory from.
CUmemoryPool current_device_pool(const simulated_device& device);

}  // namespace cenote::sim
