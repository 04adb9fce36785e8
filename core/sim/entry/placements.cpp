// Where a program wants managed memory: prefetches, advice, and what was asked for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/location.hpp"
#include "sim/ground/machine.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/placement.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

/// The range lies in one piece of managed memory, which is returned. Null: it is the host's own, which a device may use
/// where the machine has pageable access. Throws failure for any other memory.
std::shared_ptr<memory_block> movable(std::uintptr_t address, std::size_t bytes) {
  require(address != 0 && address + bytes > address);
  auto block = live_blocks().find(address);
  if (block) {
    require(block->managed() && bytes <= block->bytes - (address - block->base));
    return block;
  }
  require(this_machine().settings.pageable && !addresses().owns(address) && !addresses().owns(address + bytes - 1));
  return nullptr;
}

/// The older ABIs name a device by its ordinal, and the host by CU_DEVICE_CPU.
CUmemLocation location_of(CUdevice ordinal) {
  CUmemLocation location{};
  location.type = ordinal == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = ordinal;
  return location;
}

memory_location prefetch_target(const CUmemLocation& wanted) {
  switch (wanted.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return {wanted.type, device(wanted.id).ordinal};
    case CU_MEM_LOCATION_TYPE_HOST:
      return {wanted.type, CU_DEVICE_CPU};
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
      require(wanted.id >= 0 && wanted.id < numa_nodes);
      return {wanted.type, wanted.id};
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return {wanted.type, 0};
    default:
      fail(CUDA_ERROR_INVALID_VALUE);
  }
}

/// As for a prefetch, but the nodes of the host are one: where there is one node only, the driver answers the host.
memory_location preferred_target(const CUmemLocation& wanted) {
  const memory_location target = prefetch_target(wanted);
  return target.type == CU_MEM_LOCATION_TYPE_DEVICE ? target
                                                    : memory_location{CU_MEM_LOCATION_TYPE_HOST, CU_DEVICE_CPU};
}

CUresult prefetch(std::uintptr_t address, std::size_t bytes, const CUmemLocation& location, CUstream stream) {
  const auto on = stream_of(stream);
  if (on->capture) {
    captures().refuse(*on->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a prefetch cannot be captured");
  }
  const auto block = movable(address, bytes);
  const memory_location target = prefetch_target(location);
  on->submit({.after = {}, .action = nullptr});
  if (block) {
    placements().change(address, bytes, [&](page_placement& placement) { placement.prefetched = target; });
  }
  return CUDA_SUCCESS;
}

void set_accessed_by(page_placement& placement, const memory_location& location, bool accessed) {
  if (location.type == CU_MEM_LOCATION_TYPE_HOST) {
    placement.accessed_by_host = accessed;
    return;
  }
  const std::uint64_t bit = std::uint64_t{1} << location.id;
  placement.accessed_by_devices = accessed ? placement.accessed_by_devices | bit : placement.accessed_by_devices & ~bit;
}

CUresult advise(std::uintptr_t address, std::size_t bytes, CUmem_advise advice, const CUmemLocation& wanted) {
  require(advice >= CU_MEM_ADVISE_SET_READ_MOSTLY && advice <= CU_MEM_ADVISE_UNSET_ACCESSED_BY);
  const auto block = movable(address, bytes);
  memory_location location = nowhere;
  if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION) {
    location = preferred_target(wanted);
  } else if (advice == CU_MEM_ADVISE_SET_ACCESSED_BY || advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
    require(wanted.type == CU_MEM_LOCATION_TYPE_DEVICE || wanted.type == CU_MEM_LOCATION_TYPE_HOST);
    location = prefetch_target(wanted);
  }
  if (!block) {
    return CUDA_SUCCESS;
  }
  require(!block->pool, CUDA_ERROR_NOT_SUPPORTED);  // a pool's memory is preferred where the pool is
  placements().change(address, bytes, [&](page_placement& placement) {
    switch (advice) {
      case CU_MEM_ADVISE_SET_READ_MOSTLY:
      case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
        placement.read_mostly = advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
        break;
      case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
      case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        placement.preferred = location;
        break;
      default:
        set_accessed_by(placement, location, advice == CU_MEM_ADVISE_SET_ACCESSED_BY);
    }
  });
  return CUDA_SUCCESS;
}

/// What all pages agree on; nowhere where they do not.
memory_location common(const std::vector<page_placement>& pages, memory_location page_placement::* which) {
  const memory_location first = pages.front().*which;
  const bool agree =
      std::all_of(pages.begin(), pages.end(), [&](const page_placement& p) { return p.*which == first; });
  return agree ? first : nowhere;
}

/// The ordinals of those that access every page, CU_DEVICE_CPU after the devices, CU_DEVICE_INVALID in the rest.
void answer_accessed_by(int* answers, std::size_t count, const std::vector<page_placement>& pages) {
  std::vector<int> ordinals;
  for (const auto& device : devices()) {
    if (std::all_of(pages.begin(), pages.end(), [&](const page_placement& placement) {
          return (placement.accessed_by_devices >> device->ordinal & 1) != 0;
        })) {
      ordinals.push_back(device->ordinal);
    }
  }
  if (std::all_of(pages.begin(), pages.end(),
                  [](const page_placement& placement) { return placement.accessed_by_host; })) {
    ordinals.push_back(CU_DEVICE_CPU);
  }
  ordinals.resize(count, CU_DEVICE_INVALID);
  std::copy(ordinals.begin(), ordinals.end(), answers);
}

int answer_of(CUmem_range_attribute attribute, const std::vector<page_placement>& pages) {
  switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
      return std::all_of(pages.begin(), pages.end(),
                         [](const page_placement& placement) { return placement.read_mostly; });
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
      return common(pages, &page_placement::preferred).ordinal();
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
      return common(pages, &page_placement::preferred).type;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
      return common(pages, &page_placement::preferred).id;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
      return common(pages, &page_placement::prefetched).ordinal();
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
      return common(pages, &page_placement::prefetched).type;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
      return common(pages, &page_placement::prefetched).id;
    default:
      fail(CUDA_ERROR_INVALID_VALUE);
  }
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemPrefetchAsync(CUdeviceptr address, std::size_t bytes, CUdevice ordinal, CUstream stream) {
  return call(entry_id::cuMemPrefetchAsync, [&] { return prefetch(address, bytes, location_of(ordinal), stream); });
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr address, std::size_t bytes, CUmemLocation location, unsigned int flags,
                               CUstream stream) {
  return call(entry_id::cuMemPrefetchAsync_v2, [&] {
    require(flags == 0);
    return prefetch(address, bytes, location, stream);
  });
}

CUresult cuMemAdvise(CUdeviceptr address, std::size_t bytes, CUmem_advise advice, CUdevice ordinal) {
  return call(entry_id::cuMemAdvise, [&] { return advise(address, bytes, advice, location_of(ordinal)); });
}

CUresult cuMemAdvise_v2(CUdeviceptr address, std::size_t bytes, CUmem_advise advice, CUmemLocation location) {
  return call(entry_id::cuMemAdvise_v2, [&] { return advise(address, bytes, advice, location); });
}

CUresult cuMemRangeGetAttribute(void* data, std::size_t data_bytes, CUmem_range_attribute attribute,
                                CUdeviceptr address, std::size_t bytes) {
  return call(entry_id::cuMemRangeGetAttribute, [&] {
    require(data != nullptr && movable(address, bytes) != nullptr);
    const auto pages = placements().of(address, bytes);
    auto* const answers = static_cast<int*>(data);
    if (attribute == CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY) {
      require(data_bytes > 0 && data_bytes % sizeof(int) == 0);
      answer_accessed_by(answers, data_bytes / sizeof(int), pages);
    } else {
      require(data_bytes == sizeof(int));
      *answers = answer_of(attribute, pages);
    }
  });
}

}  // extern "C"
