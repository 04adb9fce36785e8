// What the driver tells about a pointer.
//
// Source: the answers of an H100, driver 580.159.04, for device, pinned, managed, pooled and pageable pointers.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"

namespace cenote::sim {
namespace {

template <class Value>
void answer(void* data, Value value) {
  *static_cast<Value*>(data) = value;
}

CUmemoryPool handle_of(const std::shared_ptr<simulated_pool>& wanted) {
  CUmemoryPool found = nullptr;
  live_pools().for_each([&](CUmemoryPool handle, const std::shared_ptr<simulated_pool>& pool) {
    if (pool == wanted) {
      found = handle;
    }
  });
  return found;
}

void answer_attribute(void* data, CUpointer_attribute attribute, std::uintptr_t address, const memory_block& block) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return answer<CUcontext>(data, block.in_context() ? block.device->context.handle() : nullptr);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return answer<unsigned int>(data, block.pinned() ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      require(!block.pool || block.pool->is_open_to_a_card());
      return answer<CUdeviceptr>(data, address);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      require(block.host_visible());
      return answer<void*>(data, reinterpret_cast<void*>(address));
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return answer<unsigned int>(data, block.managed());
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return answer<int>(data, block.device->ordinal);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return answer<unsigned int>(data, block.kind == block_kind::device);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return answer<CUdeviceptr>(data, block.base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return answer<std::size_t>(data, block.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return answer<unsigned int>(data, 1);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return answer<CUmemoryPool>(data, block.pool ? handle_of(block.pool) : nullptr);
    default:
      fail(CUDA_ERROR_NOT_SUPPORTED);
  }
}

/// Answers as the driver does that has no such attribute of the pointer: with nothing, in the attribute's size.
void answer_nothing(void* data, CUpointer_attribute attribute) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return answer<unsigned int>(data, 0);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return answer<int>(data, CU_DEVICE_INVALID);
    default:
      return answer<std::uint64_t>(data, 0);
  }
}

/// Throws failure(CUDA_ERROR_INVALID_VALUE) for a pointer that the driver does not know.
std::shared_ptr<memory_block> block_of(std::uintptr_t address) {
  auto block = live_blocks().find(address);
  require(block != nullptr);
  return block;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  return call(entry_id::cuPointerGetAttribute, [&] {
    require(data != nullptr);
    answer_attribute(data, attribute, address, *block_of(address));
  });
}

// NVIDIA's guide: what one attribute fails for is no error here, and answered with nothing.
CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes, void** data, CUdeviceptr address) {
  return call(entry_id::cuPointerGetAttributes, [&] {
    require(attributes != nullptr && data != nullptr);
    const auto block = live_blocks().find(address);
    for (unsigned int i = 0; i != count; ++i) {
      answer_nothing(data[i], attributes[i]);
      try {
        if (block) {
          answer_attribute(data[i], attributes[i], address, *block);
        }
      } catch (const failure& refused) {
        require(refused.code == CUDA_ERROR_INVALID_VALUE, refused.code);
      }
    }
  });
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) {
  return call(entry_id::cuMemGetAddressRange_v2, [&] {
    const auto block = live_blocks().find(address);
    require(block != nullptr, CUDA_ERROR_NOT_FOUND);
    if (base != nullptr) {
      *base = block->base;
    }
    if (bytes != nullptr) {
      *bytes = block->bytes;
    }
  });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device_address, void* address, unsigned int flags) {
  return call(entry_id::cuMemHostGetDevicePointer_v2, [&] {
    require(device_address != nullptr && flags == 0);
    const auto pointer = reinterpret_cast<std::uintptr_t>(address);
    require(block_of(pointer)->kind == block_kind::pinned);
    *device_address = pointer;
  });
}

CUresult cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
  return call(entry_id::cuIpcGetMemHandle, [&] {
    require(handle != nullptr);
    const auto block = block_of(address);
    require(block->kind == block_kind::device);
    *handle = {};
    std::memcpy(handle->reserved, &block->base, sizeof block->base);
  });
}

}  // extern "C"
