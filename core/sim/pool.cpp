#include "pool.hpp"

#include <algorithm>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {

Pool::Pool(PoolPlace place, Device& device, std::size_t max_bytes)
    : place(place), device(device), max_bytes_(max_bytes) {}

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
                                 .kind = block_kind(),
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
  require(!charged() || segment <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  const auto base = driver().addresses.take(segment, segment_step);
  if (charged()) {
    device.charge(segment);
  }
  if (managed()) {
    driver().placements.change(base, segment, [&](Placement& placement) { placement = {.preferred = place.location}; });
  }
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
      release(base, bytes);
      reserved_bytes_ -= bytes;
      at = segments_.erase(at);
    } else {
      ++at;
    }
  }
}

void Pool::release(std::uintptr_t base, std::size_t bytes) {
  if (managed()) {
    driver().placements.forget(base, bytes);
  }
  if (charged()) {
    device.discharge(bytes);
  }
  driver().addresses.give_back(base, bytes);
}

BlockKind Pool::block_kind() const {
  if (managed()) {
    return BlockKind::pooled_managed;
  }
  return charged() ? BlockKind::pooled : BlockKind::pooled_pinned;
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

CUmemAccess_flags Pool::access(const Device& by) const {
  if (managed() || (place.on_device() && &by == &device)) {
    return CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  }
  const auto found = access_.find(by.ordinal);
  return found == access_.end() ? CU_MEM_ACCESS_FLAGS_PROT_NONE : found->second;
}

void Pool::set_access(const Device& by, CUmemAccess_flags flags) {
  require(!place.on_device() || &by == &device || reaches(by, device), CUDA_ERROR_INVALID_DEVICE);
  if (flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
    access_.erase(by.ordinal);
  } else {
    access_[by.ordinal] = flags;
  }
}

std::shared_ptr<Pool> pool_of(CUmemoryPool handle) {
  return find_live(driver().pools, handle, CUDA_ERROR_INVALID_VALUE);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

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
      if (access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
        pool->set_access(device(access[i].location.id), access[i].flags);
      } else {
        require(pool->block_kind() != BlockKind::pooled, CUDA_ERROR_NOT_SUPPORTED);  // the host cannot reach a card's
      }
    }
  });
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* location) {
  return call(Entry::cuMemPoolGetAccess, [&] {
    require(flags != nullptr && location != nullptr);
    const auto pool = pool_of(handle);
    require(location->type == CU_MEM_LOCATION_TYPE_DEVICE);
    *flags = pool->access(device(location->id));
  });
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, std::size_t kept_bytes) {
  return call(Entry::cuMemPoolTrimTo, [&] { pool_of(handle)->trim_to(kept_bytes); });
}

}  // extern "C"
