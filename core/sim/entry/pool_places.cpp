// Pools: made and destroyed, and those of each place.
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>

#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/pool/pool.hpp"
#include "sim/pool/pool_place.hpp"

namespace cenote::sim {
namespace {

place_pools& pools_at(const CUmemLocation* location, CUmemAllocationType type) {
  require(location != nullptr);
  require(location->type <= CU_MEM_LOCATION_TYPE_HOST_NUMA, CUDA_ERROR_NOT_SUPPORTED);
  return pools_of(place_at(type, *location));
}

void check_pinned_properties(const CUmemPoolProps& properties) {
  // Fabric handles need hardware that is not simulated.
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
  if (this_machine().version() < first_with_pool_places) {
    require(!managed);
    require(place.on_device(), CUDA_ERROR_NOT_SUPPORTED);
  }
  managed ? check_managed_properties(properties) : check_pinned_properties(properties);
  require(pool_places().contains(place) || (managed && place.location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT));
  return place;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
  return call(entry_id::cuMemPoolCreate, [&] {
    require(handle != nullptr && properties != nullptr);
    const pool_place place = check_properties(*properties);
    simulated_device& device = card_of(place);
    require(properties->maxSize <= device.card.memory_bytes || !place.on_device(), CUDA_ERROR_OUT_OF_MEMORY);
    const std::size_t max_bytes = round_up(properties->maxSize, simulated_pool::segment_step);
    *handle =
        live_pools().insert(properties->handleTypes == CU_MEM_HANDLE_TYPE_NONE
                                ? std::make_shared<simulated_pool>(place, device, max_bytes)
                                : std::make_shared<simulated_pool>(place, pool_file::make(device), max_bytes, false));
  });
}

CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return call(entry_id::cuMemPoolDestroy, [&] {
    const auto pool = pool_of(handle);
    const auto at = pool_places().find(pool->place);
    if (at != pool_places().end()) {
      auto& [initial, current] = at->second;
      require(initial != handle);
      current = current == handle ? initial : current;
    }
    live_pools().remove(handle);
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
