#include "pool.hpp"

#include <algorithm>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {

Pool::Pool(Device& device, std::size_t max_bytes) : device(device), max_bytes_(max_bytes) {}

Pool::~Pool() { trim_to(0); }

std::shared_ptr<Block> Pool::allocate(std::size_t bytes, std::uint64_t stream_id) {
  require(bytes <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
  const std::size_t held = round_up(bytes, allocation_step);
  auto base = take_parked(held, stream_id);
  if (!base) {
    base = free_.take(held);
  }
  if (!base) {
    grow(held);
    base = free_.take(held);
  }
  used_bytes_ += held;
  used_high_ = std::max(used_high_, used_bytes_);
  return driver().blocks.insert({.base = *base,
                                 .bytes = bytes,
                                 .held = held,
                                 .kind = BlockKind::pooled,
                                 .device = &device,
                                 .pool = shared_from_this(),
                                 .physical = {}});
}

std::optional<std::uintptr_t> Pool::take_parked(std::size_t bytes, std::uint64_t stream_id) {
  for (auto at = parked_.begin(); at != parked_.end(); ++at) {
    const auto [base, parked] = *at;
    if (parked.stream_id == stream_id && parked.bytes >= bytes) {
      parked_.erase(at);
      if (parked.bytes > bytes) {
        parked_.emplace(base + bytes, Parked{parked.bytes - bytes, stream_id, parked.ticket});
      }
      return base;
    }
  }
  return std::nullopt;
}

void Pool::grow(std::size_t bytes) {
  const std::size_t segment = round_up(bytes, segment_step);
  require(max_bytes_ == 0 || reserved_bytes_ + segment <= max_bytes_, CUDA_ERROR_OUT_OF_MEMORY);
  require(segment <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  const auto base = driver().addresses.take(segment, segment_step);
  device.charge(segment);
  segments_.emplace(base, segment);
  free_.insert(base, segment);
  reserved_bytes_ += segment;
  reserved_high_ = std::max(reserved_high_, reserved_bytes_);
}

std::uint64_t Pool::park(const Block& block, std::uint64_t stream_id) {
  parked_.emplace(block.base, Parked{block.held, stream_id, ++last_ticket_});
  used_bytes_ -= block.held;
  return last_ticket_;
}

void Pool::settle(std::uint64_t ticket) {
  for (auto at = parked_.begin(); at != parked_.end();) {
    if (at->second.ticket == ticket) {
      free_.insert(at->first, at->second.bytes);
      at = parked_.erase(at);
    } else {
      ++at;
    }
  }
  trim_if_closed();
}

void Pool::free(const Block& block) {
  used_bytes_ -= block.held;
  free_.insert(block.base, block.held);
  trim_if_closed();
}

void Pool::trim_to(std::size_t kept_bytes) {
  for (auto at = segments_.begin(); at != segments_.end();) {
    const auto [base, bytes] = *at;
    if (reserved_bytes_ - bytes >= kept_bytes && free_.take_exactly(base, bytes)) {
      driver().addresses.give_back(base, bytes);
      device.discharge(bytes);
      reserved_bytes_ -= bytes;
      at = segments_.erase(at);
    } else {
      ++at;
    }
  }
}

void Pool::close() {
  closed_ = true;
  trim_if_closed();
}

void Pool::trim_if_closed() {
  if (closed_) {
    trim_to(0);
  }
}

CUresult Pool::get(CUmemPool_attribute attribute, void* value) const {
  const auto answer = [value](auto current) {
    *static_cast<decltype(current)*>(value) = current;
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      return answer(follow_event_dependencies_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      return answer(allow_opportunistic_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return answer(allow_internal_dependencies_);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      return answer(cuuint64_t{release_threshold});
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      return answer(cuuint64_t{reserved_bytes_});
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return answer(cuuint64_t{reserved_high_});
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      return answer(cuuint64_t{used_bytes_});
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return answer(cuuint64_t{used_high_});
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult Pool::set(CUmemPool_attribute attribute, const void* value) {
  const auto flag = [value](int& current) {
    current = *static_cast<const int*>(value) != 0;
    return CUDA_SUCCESS;
  };
  const auto restart_high_mark = [value](std::uint64_t& high, std::uint64_t current) {
    require(*static_cast<const cuuint64_t*>(value) == 0);
    high = current;
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      return flag(follow_event_dependencies_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      return flag(allow_opportunistic_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return flag(allow_internal_dependencies_);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      release_threshold = *static_cast<const cuuint64_t*>(value);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return restart_high_mark(reserved_high_, reserved_bytes_);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return restart_high_mark(used_high_, used_bytes_);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

std::shared_ptr<Pool> pool_of(CUmemoryPool handle) {
  return find_live(driver().pools, handle, CUDA_ERROR_INVALID_VALUE);
}

namespace {

/// Fabric handles need hardware that is not simulated; a file descriptor is accepted and never exported.
void check_pool_properties(const CUmemPoolProps& properties) {
  require(properties.allocType == CU_MEM_ALLOCATION_TYPE_PINNED);
  require(properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE ||
              properties.handleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
          CUDA_ERROR_NOT_SUPPORTED);
  require(properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE, CUDA_ERROR_NOT_SUPPORTED);
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
  return call(Entry::cuMemPoolCreate, [&] {
    require(handle != nullptr && properties != nullptr);
    check_pool_properties(*properties);
    Device& owner = device(properties->location.id);
    *handle = driver().pools.insert(std::make_shared<Pool>(owner, properties->maxSize));
  });
}

CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return call(Entry::cuMemPoolDestroy, [&] {
    const auto pool = pool_of(handle);
    require(pool->device.default_pool != handle);
    if (pool->device.current_pool == handle) {
      pool->device.current_pool = pool->device.default_pool;
    }
    driver().pools.remove(handle);
    pool->close();
  });
}

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return call(Entry::cuMemPoolSetAttribute, [&] {
    require(value != nullptr);
    return pool_of(handle)->set(attribute, value);
  });
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return call(Entry::cuMemPoolGetAttribute, [&] {
    require(value != nullptr);
    return pool_of(handle)->get(attribute, value);
  });
}

CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* access, std::size_t count) {
  return call(Entry::cuMemPoolSetAccess, [&] {
    require(access != nullptr || count == 0);
    const auto pool = pool_of(handle);
    for (std::size_t i = 0; i < count; ++i) {
      require(access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE);
      device(access[i].location.id);  // all devices of one host reach each other's memory
    }
  });
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, std::size_t kept_bytes) {
  return call(Entry::cuMemPoolTrimTo, [&] { pool_of(handle)->trim_to(kept_bytes); });
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice ordinal) {
  return call(Entry::cuDeviceGetDefaultMemPool, [&] {
    require(pool != nullptr);
    *pool = device(ordinal).default_pool;
  });
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice ordinal) {
  return call(Entry::cuDeviceGetMemPool, [&] {
    require(pool != nullptr);
    *pool = device(ordinal).current_pool;
  });
}

CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool pool) {
  return call(Entry::cuDeviceSetMemPool, [&] {
    Device& owner = device(ordinal);
    require(&pool_of(pool)->device == &owner);
    owner.current_pool = pool;
  });
}

}  // extern "C"
