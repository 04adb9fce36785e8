#include "cenote/driver/nvtx_memory.hpp"

#if __has_include(<nvtx3/nvToolsExtMem.h>)

#include <nvtx3/nvToolsExtMem.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_set>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1::nvtx {
namespace {

struct heap {
  std::size_t bytes;
  nvtxMemHeapHandle_t handle;
};

struct tables {
  driver_mutex mutex;  // guards both; the tool is called under it, so that it hears of things in their order
  std::map<std::uintptr_t, heap> heaps;  // by address
  std::unordered_set<const void*> regions;
};

tables& announced() noexcept {
  static immortal<tables> the_one;
  return *the_one;
}

std::atomic<bool> is_watched{true};  // until a tool does not take a heap

nvtxDomainHandle_t domain_of_regions() noexcept {
  static const nvtxDomainHandle_t made = nvtxDomainCreateA("cenote");
  return made;
}

/// Null where no tool listens; headers before NVTX 3.3 say so by -1.
nvtxMemHeapHandle_t register_heap(const address_range& memory) noexcept {
  const nvtxMemVirtualRangeDesc_t range{memory.bytes, memory.base};
  nvtxMemHeapDesc_t described{};
  described.extCompatID = NVTX_EXT_COMPATID_MEM;
  described.structSize = sizeof(described);
  described.usage = NVTX_MEM_HEAP_USAGE_TYPE_SUB_ALLOCATOR;
  described.type = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  described.typeSpecificDescSize = sizeof(range);
  described.typeSpecificDesc = &range;
  described.messageType = NVTX_MESSAGE_TYPE_ASCII;
  described.message.ascii = "cenote";
  const nvtxMemHeapHandle_t handle = nvtxMemHeapRegister(domain_of_regions(), &described);
  return reinterpret_cast<std::intptr_t>(handle) == -1 ? nullptr : handle;
}

void register_region(nvtxMemHeapHandle_t heap, const void* block, std::size_t bytes) noexcept {
  const nvtxMemVirtualRangeDesc_t range{bytes, block};
  nvtxMemRegionsRegisterBatch_t batch{};
  batch.extCompatID = NVTX_EXT_COMPATID_MEM;
  batch.structSize = sizeof(batch);
  batch.regionType = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  batch.heap = heap;
  batch.regionCount = 1;
  batch.regionDescElementSize = sizeof(range);
  batch.regionDescElements = &range;
  nvtxMemRegionsRegister(domain_of_regions(), &batch);
}

void unregister_region(const void* block) noexcept {
  nvtxMemRegionRef_t region{};
  region.pointer = block;
  nvtxMemRegionsUnregisterBatch_t batch{};
  batch.extCompatID = NVTX_EXT_COMPATID_MEM;
  batch.structSize = sizeof(batch);
  batch.refType = NVTX_MEM_REGION_REF_TYPE_POINTER;
  batch.refCount = 1;
  batch.refElementSize = sizeof(region);
  batch.refElements = &region;
  nvtxMemRegionsUnregister(domain_of_regions(), &batch);
}

std::uintptr_t address_of(const void* pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

/// The heap that holds `block`; null if none is known.
const heap* find_heap_locked(const tables& known, const void* block) {
  const auto after = known.heaps.upper_bound(address_of(block));
  if (after == known.heaps.begin()) return nullptr;
  const auto& [base, found] = *std::prev(after);
  return address_of(block) - base < found.bytes ? &found : nullptr;
}

/// Announces the heap of `block` if there is none yet, and the block in it if a tool listens.
bool try_announce(const void* block, std::size_t bytes, const std::optional<address_range>& memory) {
  tables& known = announced();
  const std::lock_guard lock(known.mutex);
  const heap* holder = find_heap_locked(known, block);
  if (holder == nullptr) {
    if (!memory) return false;
    const nvtxMemHeapHandle_t handle = register_heap(*memory);
    if (handle == nullptr) {
      is_watched = false;
      return true;
    }
    holder = &known.heaps.insert_or_assign(address_of(memory->base), heap{memory->bytes, handle}).first->second;
  }
  known.regions.insert(block);
  register_region(holder->handle, block, bytes);
  return true;
}

bool is_region(const void* block) {
  tables& known = announced();
  const std::lock_guard lock(known.mutex);
  return known.regions.count(block) != 0;
}

}  // namespace

void region_begins(const void* block, std::size_t bytes, int device) noexcept {
  if (!is_watched) return;
  try {
    if (try_announce(block, bytes, std::nullopt)) return;
    const relaxed_capture_scope relaxed;
    const device_scope scope(device);  // compute-sanitizer refuses a heap where no context is current
    try_announce(block, bytes, find_address_range(block, device));
  } catch (const std::exception& error) {
    report_once(error.what());
  }
}

void region_ends(const void* block, stream_ref stream, int device) noexcept {
  if (!is_watched) return;
  try {
    if (!is_region(block)) return;  // it is told by the outermost resource; for those under it there is nothing left
    if (!is_capturing(stream, device) && accepts_work(stream, device)) {
      const relaxed_capture_scope relaxed;
      synchronize(stream, device);
    }
  } catch (const std::exception& error) {
    report_once(error.what());
  }
  tables& known = announced();
  const std::lock_guard lock(known.mutex);
  if (known.regions.erase(block) != 0) unregister_region(block);
}

void heap_ends(const void* base) noexcept {
  if (!is_watched) return;
  tables& known = announced();
  const std::lock_guard lock(known.mutex);
  const auto found = known.heaps.find(address_of(base));
  if (found == known.heaps.end()) return;
  const std::size_t bytes = found->second.bytes;  // blocks that nobody freed go with their heap
  std::erase_if(known.regions, [=](const void* block) { return address_of(block) - address_of(base) < bytes; });
  nvtxMemHeapUnregister(domain_of_regions(), found->second.handle);
  known.heaps.erase(found);
}

}  // namespace cenote::inline v1::nvtx

#else

namespace cenote::inline v1::nvtx {

void region_begins(const void*, std::size_t, int) noexcept {}
void region_ends(const void*, stream_ref, int) noexcept {}
void heap_ends(const void*) noexcept {}

}  // namespace cenote::inline v1::nvtx

#endif
