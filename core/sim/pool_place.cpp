#include "pool_place.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

/// The id counts for cards and NUMA nodes only.
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
  const auto found = driver().pool_places.find(place);
  require(found != driver().pool_places.end());
  return found->second;
}

place_pools& pools_at(const CUmemLocation* location, CUmemAllocationType type) {
  require(location != nullptr);
  require(location->type <= CU_MEM_LOCATION_TYPE_HOST_NUMA, CUDA_ERROR_NOT_SUPPORTED);
  return pools_of(place_at(type, *location));
}

/// For a place on no card, what belongs to a card is device 0's: the driver names it for pointers into such a pool.
simulated_device& device_of(const pool_place& place) { return device(place.on_device() ? place.location.id : 0); }

void check_pinned_properties(const CUmemPoolProps& properties) {
  // Fabric handles need hardware that is not simulated; a file descriptor is accepted and never exported.
  require(properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE ||
              properties.handleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
          CUDA_ERROR_NOT_SUPPORTED);
  require(properties.location.type != CU_MEM_LOCATION_TYPE_HOST || properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE);
}

/// Managed memory is not shared between processes, and its pools have no limit of their own.
void check_managed_properties(const CUmemPoolProps& properties) {
  require(properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE && properties.maxSize == 0);
}

pool_place check_properties(const CUmemPoolProps& properties) {
  require(std::all_of(std::begin(properties.reserved), std::end(properties.reserved),
                      [](unsigned char byte) { return byte == 0; }));
  const pool_place place = place_at(properties.allocType, properties.location);
  const bool managed = place.type == CU_MEM_ALLOCATION_TYPE_MANAGED;
  if (driver().version() < first_with_pool_places) {
    require(!managed);
    require(place.on_device(), CUDA_ERROR_NOT_SUPPORTED);
  }
  managed ? check_managed_properties(properties) : check_pinned_properties(properties);
  require(driver().pool_places.contains(place) ||
          (managed && place.location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT));
  return place;
}

}  // namespace

void make_default_pools() {
  Driver& sim = driver();
  const pool_place_map earlier = std::exchange(sim.pool_places, {});
  const auto make_at = [&](const memory_location& location) {
    for (const auto type : {CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_ALLOCATION_TYPE_MANAGED}) {
      if (location != nowhere || type == CU_MEM_ALLOCATION_TYPE_MANAGED) {
        const pool_place place{type, location};
        const auto known = earlier.find(place);
        const auto pool = known == earlier.end() ? sim.pools.insert(std::make_shared<simulated_pool>(place, device_of(place), 0))
                                                 : known->second.initial;
        pool_of(pool)->release_threshold = 0;
        sim.pool_places.emplace(place, place_pools{pool, pool});
      }
    }
  };
  for (const simulated_device* device : sim.devices) {
    make_at({CU_MEM_LOCATION_TYPE_DEVICE, device->ordinal});
  }
  make_at({CU_MEM_LOCATION_TYPE_HOST, 0});
  for (int node = 0; node < numa_nodes; ++node) {
    make_at({CU_MEM_LOCATION_TYPE_HOST_NUMA, node});
  }
  make_at(nowhere);
}

CUmemoryPool current_device_pool(const simulated_device& device) { return pools_of(pinned_place(device)).current; }

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
  return call(entry_id::cuMemPoolCreate, [&] {
    require(handle != nullptr && properties != nullptr);
    const pool_place place = check_properties(*properties);
    simulated_device& device = device_of(place);
    require(properties->maxSize <= device.card.memory_bytes || !place.on_device(), CUDA_ERROR_OUT_OF_MEMORY);
    const std::size_t max_bytes = round_up(properties->maxSize, simulated_pool::segment_step);
    *handle = driver().pools.insert(std::make_shared<simulated_pool>(place, device, max_bytes));
  });
}

CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return call(entry_id::cuMemPoolDestroy, [&] {
    const auto pool = pool_of(handle);
    const auto at = driver().pool_places.find(pool->place);
    if (at != driver().pool_places.end()) {
      auto& [initial, current] = at->second;
      require(initial != handle);
      current = current == handle ? initial : current;
    }
    driver().pools.remove(handle);
    pool->close();
  });
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  return call(entry_id::cuMemGetDefaultMemPool, [&] {
    require(pool != nullptr);
    *pool = pools_at(location, type).initial;
  });
}

CUresult cuMemGetMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  return call(entry_id::cuMemGetMemPool, [&] {
    require(pool != nullptr);
    *pool = pools_at(location, type).current;
  });
}

CUresult cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type, CUmemoryPool pool) {
  return call(entry_id::cuMemSetMemPool, [&] {
    place_pools& pools = pools_at(location, type);
    require(pool != nullptr && pool_of(pool)->place == place_at(type, *location));
    pools.current = pool;
  });
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetDefaultMemPool, [&] {
    require(pool != nullptr);
    *pool = pools_of(pinned_place(device(ordinal))).initial;
  });
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetMemPool, [&] {
    require(pool != nullptr);
    *pool = current_device_pool(device(ordinal));
  });
}

/// Takes a managed pool of the card as well, which becomes the current one of its own place.
CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool pool) {
  return call(entry_id::cuDeviceSetMemPool, [&] {
    const int wanted = device(ordinal).ordinal;
    const pool_place place = pool_of(pool)->place;
    require(place.on_device() && place.location.id == wanted);
    pools_of(place).current = pool;
  });
}

}  // extern "C"
