// Allocation and free of device, pinned and managed memory, neither of them in stream order.
#include <cstddef>
#include <cstdint>

#include "sim/device/allocation.hpp"
#include "sim/device/context.hpp"
#include "sim/device/device.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"

namespace cenote::sim {
namespace {

CUresult allocate_pinned(void** address, std::size_t bytes) {
  require(address != nullptr);
  *address = nullptr;
  if (bytes > 0) {
    *address = reinterpret_cast<void*>(allocate_block(block_kind::pinned, current_context().device, bytes)->base);
  }
  return CUDA_SUCCESS;
}

/// Frees the block at the address, once all work of its device is done; refused unless `may_free(block)`. What went
/// with an earlier machine is gone already.
template <class MayFree>
void synchronise_and_free(std::uintptr_t address, MayFree&& may_free) {
  if (addresses().is_retired(address)) {
    return;
  }
  const auto found = [&] {
    auto block = live_blocks().find_base(address);
    if (!block || !may_free(*block)) {
      refuse_free(address);
    }
    return block;
  };
  advance(found()->device->context.all_work());
  const auto block = found();  // looked up again: a host function may have run, and another thread freed it meanwhile
  if (block->pool) {
    end_block(*block);
    block->pool->free(*block);
  } else {
    free_block(*block);
  }
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemAlloc_v2(CUdeviceptr* address, std::size_t bytes) {
  return call(entry_id::cuMemAlloc_v2, [&] {
    require(address != nullptr && bytes > 0);
    simulated_device& card = current_context().device;
    require(bytes <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
    make_room(card, round_up(bytes, allocation_step));
    *address = allocate_block(block_kind::device, card, bytes)->base;
  });
}

CUresult cuMemAllocManaged(CUdeviceptr* address, std::size_t bytes, unsigned int flags) {
  return call(entry_id::cuMemAllocManaged, [&] {
    require(address != nullptr && bytes > 0);
    require(flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST);
    *address = allocate_block(block_kind::managed, current_context().device, bytes)->base;
  });
}

CUresult cuMemHostAlloc(void** address, std::size_t bytes, unsigned int flags) {
  return call(entry_id::cuMemHostAlloc, [&] {
    constexpr unsigned int known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    require((flags & ~known) == 0);
    return allocate_pinned(address, bytes);
  });
}

CUresult cuMemAllocHost_v2(void** address, std::size_t bytes) {
  return call(entry_id::cuMemAllocHost_v2, [&] { return allocate_pinned(address, bytes); });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  return call(entry_id::cuMemFree_v2, [&] {
    if (address != 0) {
      synchronise_and_free(address, [](const memory_block& block) {
        return block.pool || block.kind == block_kind::device || block.kind == block_kind::managed;
      });
    }
  });
}

CUresult cuMemFreeHost(void* address) {
  return call(entry_id::cuMemFreeHost, [&] {
    if (address != nullptr) {
      synchronise_and_free(reinterpret_cast<std::uintptr_t>(address), [](const memory_block& block) {
        return block.kind == block_kind::pinned && !block.is_registered;
      });
    }
  });
}

CUresult cuMemHostRegister_v2(void* address, std::size_t bytes, unsigned int flags) {
  return call(entry_id::cuMemHostRegister_v2, [&] {
    constexpr unsigned int known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    require(address != nullptr && bytes > 0 && (flags & ~known) == 0);
    const auto base = reinterpret_cast<std::uintptr_t>(address);
    require(!addresses().owns(base));
    require(!live_blocks().overlaps(base, bytes), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    live_blocks().insert({.base = base,
                          .bytes = bytes,
                          .held = bytes,
                          .kind = block_kind::pinned,
                          .device = &current_context().device,
                          .pool = {},
                          .physical = {},
                          .is_registered = true});
  });
}

CUresult cuMemHostUnregister(void* address) {
  return call(entry_id::cuMemHostUnregister, [&] {
    require(address != nullptr);
    const auto block = live_blocks().find_base(reinterpret_cast<std::uintptr_t>(address));
    require(block && block->is_registered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    synchronise_and_free(block->base, [](const memory_block& found) { return found.is_registered; });
  });
}

}  // extern "C"
