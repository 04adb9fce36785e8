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
// Threads: guarded by driver_mutex().
// Source: the answers of an H100, driver 580.159.04, for every pair of location and type.
#pragma once

#include <compare>
#include <map>

#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/location.hpp"

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

/// Returns the place that a program names. The id counts for cards and NUMA nodes only.
pool_place place_at(CUmemAllocationType type, const CUmemLocation& location);

/// Where the pool of cuMemAllocAsync is.
pool_place pinned_place(const simulated_device& device);

/// Throws failure(CUDA_ERROR_INVALID_VALUE) for a place that has none.
place_pools& pools_of(const pool_place& place);

/// For a place on no card, what belongs to a card is device 0's: the driver names it for pointers into such a pool.
simulated_device& card_of(const pool_place& place);

/// Once the devices are there. Those of an earlier machine are its again; those of a card that is gone are lost.
void make_default_pools();

/// What cuMemAllocAsync takes memory from.
CUmemoryPool current_device_pool(const simulated_device& device);

/// Every place that has pools.
pool_place_map& pool_places();

}  // namespace cenote::sim
