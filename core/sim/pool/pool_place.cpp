#include "sim/pool/pool_place.hpp"

#include <memory>
#include <utility>

#include "sim/device/device.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/location.hpp"
#include "sim/pool/pool.hpp"

namespace cenote::sim {

pool_place place_at(CUmemAllocationType type, const CUmemLocation& location) {
  switch (location.type) {
    case CU_MEM_LOCATION_TYPE_NONE:
      return {type, nowhere};
    case CU_MEM_LOCATION_TYPE_DEVICE:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
      return {type, {location.type, location.id}};
    default:
      return {type, {location.type, 0}};
  }
}

pool_place pinned_place(const simulated_device& device) {
  return {CU_MEM_ALLOCATION_TYPE_PINNED, {CU_MEM_LOCATION_TYPE_DEVICE, device.ordinal}};
}

place_pools& pools_of(const pool_place& place) {
  const auto found = pool_places().find(place);
  require(found != pool_places().end());
  return found->second;
}

simulated_device& card_of(const pool_place& place) { return device(place.on_device() ? place.location.id : 0); }

void make_default_pools() {
  const pool_place_map earlier = std::exchange(pool_places(), {});
  const auto make_at = [&](const memory_location& location) {
    for (const auto type : {CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_ALLOCATION_TYPE_MANAGED}) {
      if (location != nowhere || type == CU_MEM_ALLOCATION_TYPE_MANAGED) {
        const pool_place place{type, location};
        const auto known = earlier.find(place);
        const auto pool = known == earlier.end()
                              ? live_pools().insert(std::make_shared<simulated_pool>(place, card_of(place), 0))
                              : known->second.initial;
        pool_of(pool)->release_threshold = 0;
        pool_places().emplace(place, place_pools{pool, pool});
      }
    }
  };
  for (const simulated_device* device : devices()) {
    make_at({CU_MEM_LOCATION_TYPE_DEVICE, device->ordinal});
  }
  make_at({CU_MEM_LOCATION_TYPE_HOST, 0});
  for (int node = 0; node < numa_nodes; ++node) {
    make_at({CU_MEM_LOCATION_TYPE_HOST_NUMA, node});
  }
  make_at(nowhere);
}

CUmemoryPool current_device_pool(const simulated_device& device) { return pools_of(pinned_place(device)).current; }

pool_place_map& pool_places() {
  static pool_place_map* const places = new pool_place_map;
  return *places;
}

}  // namespace cenote::sim
