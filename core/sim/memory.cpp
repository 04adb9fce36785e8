#include "memory.hpp"

#include "call.hpp"
#include "driver.hpp"

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

/// The block at the address, once all work of its device is done; refused unless `may_free(block)`. What went with an
/// earlier machine is gone already.
template <class MayFree>
void synchronise_and_free(std::uintptr_t address, MayFree&& may_free) {
  if (driver().addresses.is_retired(address)) {
    return;
  }
  const auto found = [&] {
    auto block = driver().blocks.find_base(address);
    if (!block || !may_free(*block)) {
      refuse_free(address);
    }
    return block;
  };
  advance(found()->device->context.all_work());
  free_block(*found());  // looked up again: a host function may have run, and another thread freed it meanwhile
}

}  // namespace

std::shared_ptr<memory_block> allocate_block(block_kind kind, simulated_device& device, std::size_t bytes) {
  require(bytes <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
  const std::size_t step = kind == block_kind::managed ? page_bytes : allocation_step;
  const std::size_t held = round_up(bytes, step);
  const bool charged = kind == block_kind::device;
  if (charged) {
    make_room(device, held);
    require(held <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  }
  const auto base = driver().addresses.take(held, step);
  if (charged) {
    device.charge(held);
  }
  return driver().blocks.insert(
      {.base = base, .bytes = bytes, .held = held, .kind = kind, .device = &device, .pool = {}, .physical = {}});
}

void free_block(memory_block& block) {
  if (block.state == block_state::live) {
    driver().blocks.remove(block);
    block.ended_by = current_call();
  }
  block.state = block_state::dead;
  if (block.pool) {
    block.pool->free(block);
    return;
  }
  if (block.kind == block_kind::device) {
    block.device->discharge(block.held);
  } else if (block.kind == block_kind::managed) {
    driver().placements.forget(block.base, block.held);
  }
  driver().addresses.give_back(block.base, block.held);
}

void refuse_free(std::uintptr_t address) {
  driver().violations.add(
      "pointer " + hex(address) +
      " is not the start of memory that this call may free: unknown, of another kind, or freed before");
  fail(CUDA_ERROR_INVALID_VALUE);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemAlloc_v2(CUdeviceptr* address, std::size_t bytes) {
  return call(entry_id::cuMemAlloc_v2, [&] {
    require(address != nullptr && bytes > 0);
    *address = allocate_block(block_kind::device, current_context().device, bytes)->base;
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
      synchronise_and_free(reinterpret_cast<std::uintptr_t>(address),
                           [](const memory_block& block) { return block.kind == block_kind::pinned; });
    }
  });
}

}  // extern "C"
