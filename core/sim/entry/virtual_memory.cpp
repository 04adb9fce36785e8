// The virtual memory interface: addresses are reserved, physical memory is made, mapped there and made accessible.
//
//        cuMemAddressReserve   [............................]   sealed: nothing may touch it
//        cuMemMap              [mapped  ][mapped  ][........]   a block each, still sealed
//        cuMemSetAccess        [usable  ][usable  ][........]
//
// None of these calls waits for work, and every one is legal in a capture. A handle is mapped whole or not at all, and
// a mapping goes whole; a range to unmap may hold several of them, and places where nothing is mapped.
//
// What a mapping must wait for, and who may touch it when, is checked as well: docs/design/simulated-driver.md, Pages
// that move under work.
//
// Source: the answers of an H200, driver 580.159.04. Stricter than they: a mapping lies in one reservation, access is
// set where all of the range is mapped (that driver looks at its two ends, and sets it for a part), and ranges to unmap
// or to open are multiples of the granularity.
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "sim/device/allocation.hpp"
#include "sim/device/device.hpp"
#include "sim/device/physical_piece.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/current_call.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/made.hpp"
#include "sim/ground/violations.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/backing_file.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/physical_memory.hpp"
#include "sim/memory/reservation.hpp"
#include "sim/pool/pool.hpp"

namespace cenote::sim {
namespace {

constexpr std::size_t granularity = physical_memory::granularity;

bool is_multiple(std::uintptr_t value) { return value % granularity == 0; }

void require_virtual_memory() { require(this_machine().settings.virtual_memory, CUDA_ERROR_NOT_SUPPORTED); }

/// Memory of the host is not simulated here.
void check_properties(const CUmemAllocationProp* properties) {
  require_virtual_memory();
  require(properties != nullptr && properties->type == CU_MEM_ALLOCATION_TYPE_PINNED);
  const auto location = properties->location.type;
  require(location == CU_MEM_LOCATION_TYPE_DEVICE,
          location == CU_MEM_LOCATION_TYPE_HOST || location == CU_MEM_LOCATION_TYPE_HOST_NUMA
              ? CUDA_ERROR_NOT_SUPPORTED
              : CUDA_ERROR_INVALID_VALUE);
  switch (properties->requestedHandleTypes) {
    case CU_MEM_HANDLE_TYPE_NONE:
    case CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR:
      return;
    case CU_MEM_HANDLE_TYPE_FABRIC:
      fail(CUDA_ERROR_NOT_PERMITTED);
    default:
      fail(CUDA_ERROR_INVALID_VALUE);
  }
}

/// The range lies within one reservation, and is made of places for pages.
void require_reserved(std::uintptr_t address, std::size_t bytes) {
  require(is_multiple(address) && is_multiple(bytes));
  const auto after = reservations().upper_bound(address);
  require(bytes > 0 && after != reservations().begin());
  const auto& [start, reservation] = *std::prev(after);
  require(address - start < reservation.bytes && bytes <= reservation.bytes - (address - start));
}

/// The mapped blocks within the range; fails where one of them sticks out of it.
std::vector<std::shared_ptr<memory_block>> whole_mappings(std::uintptr_t address, std::size_t bytes) {
  const auto& blocks = live_blocks();
  const auto first = blocks.find(address);
  require(first == nullptr || first->base == address);
  std::vector<std::shared_ptr<memory_block>> found;
  for (auto at = blocks.all().lower_bound(address); at != blocks.all().end() && at->first < address + bytes; ++at) {
    require(at->first + at->second->bytes <= address + bytes);
    found.push_back(at->second);
  }
  return found;
}

std::shared_ptr<physical_piece> physical_of(CUmemGenericAllocationHandle handle) {
  return find_live(live_pieces(), handle, CUDA_ERROR_INVALID_VALUE);
}

/// A card that the description names, and what it may do from now on.
struct wanted_access {
  std::size_t card;
  bool allowed;
};

wanted_access read_access(const CUmemAccessDesc& described) {
  const auto& [location, flags] = described;
  require(location.type == CU_MEM_LOCATION_TYPE_DEVICE,
          location.type == CU_MEM_LOCATION_TYPE_HOST || location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA
              ? CUDA_ERROR_NOT_SUPPORTED
              : CUDA_ERROR_INVALID_VALUE);
  require(location.id >= 0 && static_cast<std::size_t>(location.id) < devices().size());
  require(flags == CU_MEM_ACCESS_FLAGS_PROT_NONE || flags == CU_MEM_ACCESS_FLAGS_PROT_READ ||
          flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  return {static_cast<std::size_t>(location.id), flags != CU_MEM_ACCESS_FLAGS_PROT_NONE};
}

/// Work on a card touches host memory here, so that the page is open to this process once it is open to any card.
void change_access(memory_block& block, const std::vector<wanted_access>& changes) {
  for (const auto& [card, allowed] : changes) {
    block.open_to.set(card, allowed);
  }
  const int protection = block.open_to.any() ? PROT_READ | PROT_WRITE : PROT_NONE;
  require(mprotect(reinterpret_cast<void*>(block.base), block.bytes, protection) == 0, CUDA_ERROR_OUT_OF_MEMORY);
  block.ended_by = current_call();
}

void set_access(std::uintptr_t address, std::size_t bytes, const CUmemAccessDesc* access, std::size_t count) {
  const auto covered = live_blocks().covering(address, bytes);
  require(!covered.empty() && whole_mappings(address, bytes).size() == covered.size());
  std::vector<wanted_access> changes;
  std::transform(access, access + count, std::back_inserter(changes), read_access);
  for (const auto& [card, allowed] : changes) {
    const simulated_device& by = *devices()[card];
    require(std::all_of(covered.begin(), covered.end(),
                        [&](const auto& block) { return block->device == &by || reaches(by, *block->device); }),
            CUDA_ERROR_INVALID_DEVICE);
  }
  for (const auto& block : covered) {
    change_access(*block, changes);
  }
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemGetAllocationGranularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                       CUmemAllocationGranularity_flags flags) {
  return call(entry_id::cuMemGetAllocationGranularity, [&] {
    require(bytes != nullptr);
    require(flags == CU_MEM_ALLOC_GRANULARITY_MINIMUM || flags == CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    check_properties(properties);
    device(properties->location.id);
    *bytes = granularity;
  });
}

CUresult cuMemAddressReserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                             unsigned long long flags) {
  return call(entry_id::cuMemAddressReserve, [&] {
    require_virtual_memory();
    require(address != nullptr && bytes > 0 && is_multiple(bytes) && flags == 0);
    require((alignment & (alignment - 1)) == 0);
    require(bytes <= max_allocation_bytes && alignment <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
    alignment = std::max(alignment, granularity);
    const bool wanted = hint % alignment == 0 && addresses().take_exactly(hint, bytes);
    const auto base = wanted ? hint : addresses().take_untouched(bytes, alignment);
    seal(base, bytes);
    reservations().emplace(base, address_reservation{bytes, made_now()});
    *address = base;
  });
}

CUresult cuMemAddressFree(CUdeviceptr address, std::size_t bytes) {
  return call(entry_id::cuMemAddressFree, [&] {
    if (addresses().is_retired(address)) {
      return;
    }
    const auto at = reservations().find(address);
    require(at != reservations().end() && at->second.bytes == bytes);
    if (const auto left = whole_mappings(address, bytes); !left.empty()) {
      violations().add("the reservation at " + hex(address) + " still has mappings: " + std::to_string(left.size()));
      fail(CUDA_ERROR_INVALID_VALUE);
    }
    reservations().erase(at);
    unseal(address, bytes);
    addresses().give_back_untouched(address, bytes);
  });
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                     unsigned long long flags) {
  return call(entry_id::cuMemCreate, [&] {
    require(handle != nullptr && bytes > 0 && is_multiple(bytes) && flags == 0);
    check_properties(properties);
    simulated_device& card = device(properties->location.id);
    make_room(card, bytes);
    const bool exportable = properties->requestedHandleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    *handle = live_pieces().insert(std::make_shared<physical_piece>(card, bytes, exportable));
  });
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return call(entry_id::cuMemRelease, [&] {
    if (live_pieces().is_retired(handle)) {
      return;
    }
    physical_of(handle);
    live_pieces().remove(handle);
  });
}

CUresult cuMemMap(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags) {
  return call(entry_id::cuMemMap, [&] {
    require(is_multiple(address) && bytes > 0 && flags == 0);
    const auto physical = physical_of(handle);
    if (offset == 0 && bytes > physical->bytes) {
      violations().add(std::to_string(bytes) + " bytes are mapped of physical memory that has " +
                       std::to_string(physical->bytes));
    }
    require(offset == 0 && bytes == physical->bytes, CUDA_ERROR_NOT_SUPPORTED);
    require_reserved(address, bytes);
    require(whole_mappings(address, bytes).empty());
    physical->file->show(address, bytes, physical->offset);
    live_blocks().insert({.base = address,
                          .bytes = bytes,
                          .held = bytes,
                          .kind = block_kind::mapped,
                          .device = &physical->device,
                          .pool = {},
                          .physical = physical});
  });
}

CUresult cuMemUnmap(CUdeviceptr address, std::size_t bytes) {
  return call(entry_id::cuMemUnmap, [&] {
    if (addresses().is_retired(address)) {
      return;
    }
    require_reserved(address, bytes);
    const auto mappings = whole_mappings(address, bytes);
    seal(address, bytes);
    for (const auto& block : mappings) {
      if (const auto pending = block->physical->accesses.end_mapping(block->base)) {
        violations().add("memory at " + hex(block->base) + " is unmapped while work of " + pending->call +
                         " on it is pending");
      }
      block->state = block_state::dead;
      block->ended_by = current_call();
      block->physical = nullptr;
      live_blocks().remove(*block);
    }
  });
}

CUresult cuMemSetAccess(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access, std::size_t count) {
  return call(entry_id::cuMemSetAccess, [&] {
    require(access != nullptr && count > 0);
    require_reserved(address, bytes);
    set_access(address, bytes, access, count);
  });
}

CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr address) {
  return call(entry_id::cuMemGetAccess, [&] {
    require(flags != nullptr && location != nullptr && location->type == CU_MEM_LOCATION_TYPE_DEVICE);
    const auto card = static_cast<std::size_t>(device(location->id).ordinal);
    const auto block = live_blocks().find(address);
    require(block != nullptr && block->kind == block_kind::mapped);
    *flags = block->open_to.test(card) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  });
}

}  // extern "C"
