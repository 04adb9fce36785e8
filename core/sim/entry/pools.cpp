// Attributes and access of pools.
#include <cstddef>

#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"

using namespace cenote::sim;

extern "C" {

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return call(entry_id::cuMemPoolSetAttribute, [&] {
    require(value != nullptr);
    return pool_of(handle)->set(attribute, value);
  });
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return call(entry_id::cuMemPoolGetAttribute, [&] {
    require(value != nullptr);
    return pool_of(handle)->get(attribute, value);
  });
}

CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* access, std::size_t count) {
  return call(entry_id::cuMemPoolSetAccess, [&] {
    require(access != nullptr && count > 0);
    const auto pool = pool_of(handle);
    for (std::size_t i = 0; i < count; ++i) {
      if (access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
        pool->set_access(device(access[i].location.id), access[i].flags);
      } else {
        require(pool->kind_of_blocks() != block_kind::pooled,
                CUDA_ERROR_NOT_SUPPORTED);  // the host cannot reach a card's
      }
    }
  });
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* location) {
  return call(entry_id::cuMemPoolGetAccess, [&] {
    require(flags != nullptr && location != nullptr);
    const auto pool = pool_of(handle);
    require(location->type == CU_MEM_LOCATION_TYPE_DEVICE);
    *flags = pool->access(device(location->id));
  });
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, std::size_t kept_bytes) {
  return call(entry_id::cuMemPoolTrimTo, [&] { pool_of(handle)->trim_to(kept_bytes); });
}

}  // extern "C"
