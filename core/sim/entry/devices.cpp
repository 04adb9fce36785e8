// What the driver tells about the devices.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "sim/device/context.hpp"
#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/machine.hpp"
#include "sim/pool/pool_place.hpp"

namespace cenote::sim {
namespace {

/// What a program may ask of a card and plan by: an H100's answers. An attribute that is not here is 0.
int attribute_of(const simulated_device& device, CUdevice_attribute attribute) {
  static const auto& known = *new std::map<CUdevice_attribute, int>{
      {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
      {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
      {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152},
      {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
      {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
      {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
      {CU_DEVICE_ATTRIBUTE_INTEGRATED, 0},
      {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
      {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 3},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
      {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
      {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 1},
      {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1},
      {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR},
      {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 0},
      {CU_DEVICE_ATTRIBUTE_NUMA_ID, -1},
      {CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, 0},
  };
  require(attribute > 0 && attribute < CU_DEVICE_ATTRIBUTE_MAX);
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
      return device.card.gpu + 1;
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED:
      return this_machine().settings.virtual_memory;
    case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS:
      return this_machine().settings.pageable;
    case CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_NUMA_MEMORY_POOLS_SUPPORTED:
      return this_machine().version() >= first_with_pool_places;
    default: {
      const auto found = known.find(attribute);
      return found == known.end() ? 0 : found->second;
    }
  }
}

/// The 32 hexadecimal digits behind the prefix.
CUuuid bytes_of(const std::string& uuid) {
  CUuuid bytes{};
  std::string digits = uuid.substr(uuid.find('-') + 1);
  std::erase(digits, '-');
  for (std::size_t i = 0; i < sizeof bytes.bytes; ++i) {
    bytes.bytes[i] = static_cast<char>(std::stoi(digits.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuDeviceGet(CUdevice* handle, int ordinal) {
  return call(entry_id::cuDeviceGet, [&] {
    require(handle != nullptr);
    *handle = device(ordinal).ordinal;
  });
}

CUresult cuDeviceGetCount(int* count) {
  return call(entry_id::cuDeviceGetCount, [&] {
    require(count != nullptr);
    *count = static_cast<int>(devices().size());
  });
}

CUresult cuDeviceGetName(char* name, int capacity, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetName, [&] {
    require(name != nullptr && capacity > 0);
    const auto& full = device(ordinal).card.name;
    const auto length = std::min(full.size(), static_cast<std::size_t>(capacity) - 1);
    std::memcpy(name, full.data(), length);
    name[length] = '\0';
  });
}

/// The UUID of the physical card, where the device is a MIG instance.
CUresult(cuDeviceGetUuid)(CUuuid* uuid, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetUuid, [&] {
    require(uuid != nullptr);
    *uuid = bytes_of(device(ordinal).card.gpu_uuid);
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetUuid_v2, [&] {
    require(uuid != nullptr);
    *uuid = bytes_of(device(ordinal).card.uuid);
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice ordinal) {
  return call(entry_id::cuDeviceGetAttribute, [&] {
    require(value != nullptr);
    *value = attribute_of(device(ordinal), attribute);
  });
}

CUresult cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice ordinal) {
  return call(entry_id::cuDeviceTotalMem_v2, [&] {
    require(bytes != nullptr);
    *bytes = device(ordinal).card.memory_bytes;
  });
}

CUresult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  return call(entry_id::cuMemGetInfo_v2, [&] {
    require(free != nullptr && total != nullptr);
    const simulated_device& device = current_context().device;
    *free = device.free_bytes();
    *total = device.card.memory_bytes;
  });
}

}  // extern "C"
