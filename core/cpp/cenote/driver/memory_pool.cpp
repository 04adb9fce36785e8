#include "cenote/driver/memory_pool.hpp"

#include <stdexcept>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/driver/idle_pools.hpp"
#include "cenote/driver/peer_access.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/process.hpp"

namespace cenote {
namespace {

int handle_types(export_handles handles) {
  return (handles.posix_file_descriptor ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0) |
         (handles.fabric ? CU_MEM_HANDLE_TYPE_FABRIC : 0);
}

void check_supported(int device, int wanted) {
  int pools = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetAttribute, &pools, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device);
  if (pools == 0) throw std::runtime_error("the driver has no memory pools on device " + std::to_string(device));
  int kinds = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetAttribute, &kinds, CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, device);
  if ((kinds & wanted) != wanted) throw std::runtime_error("Requested IPC memory handle type not supported");
}

/// Blackwell and later: memory that its decompression engine may read must be asked for.
bool has_decompression_engine(int device) {
  constexpr int first_driver = 12080;
  return driver_version() >= first_driver &&
         device_attribute(device, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK) != 0;
}

CUmemoryPool make_pool(int device, int types) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = static_cast<CUmemAllocationHandleType>(types);
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device}};
  if (has_decompression_engine(device)) properties.usage = CU_MEM_POOL_CREATE_USAGE_HW_DECOMPRESS;
  CUmemoryPool made = nullptr;
  CENOTE_DRIVER_CALL(cuMemPoolCreate, &made, &properties);
  return made;
}

CUresult set_release_threshold(CUmemoryPool pool, cuuint64_t bytes) {
  return driver().cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes);
}

std::size_t pool_attribute(CUmemoryPool pool, CUmemPool_attribute attribute) {
  cuuint64_t value = 0;
  CENOTE_DRIVER_CALL(cuMemPoolGetAttribute, pool, attribute, &value);
  return value;
}

}  // namespace

memory_pool::memory_pool(int device, std::uint64_t release_threshold, export_handles handles, const peer_devices& peers)
    : device_(device), is_shared_(handle_types(handles) != 0) {
  const int types = handle_types(handles);
  const device_scope scope(device);
  check_supported(device, types);
  check_peers(peers, device);
  if (!is_shared_) handle_ = idle_pools::of(device).take();
  if (handle_ == nullptr) handle_ = make_pool(device, types);
  try {
    check_driver("cuMemPoolSetAttribute", set_release_threshold(handle_, release_threshold));
    open_to_peers(handle_, device, peers);
  } catch (...) {
    forget_pool(handle_);
    driver().cuMemPoolDestroy(handle_);
    throw;
  }
}

memory_pool::~memory_pool() {
  if (driver_is_gone()) return;
  stop_following(handle_);
  try {
    const relaxed_capture_scope relaxed;
    if (set_aside()) return;
    forget_pool(handle_);
    CENOTE_DRIVER_CALL(cuMemPoolDestroy, handle_);
  } catch (const std::exception& error) {
    report_once(error.what());
  }
}

CUmemPoolHandle_st* memory_pool::share() const noexcept {
  is_shared_ = true;
  return handle_;
}

bool memory_pool::set_aside() const noexcept {
  return !is_shared_ && set_release_threshold(handle_, 0) == CUDA_SUCCESS &&
         driver().cuMemPoolTrimTo(handle_, 0) == CUDA_SUCCESS && idle_pools::of(device_).keep(handle_);
}

memory_pool_ref default_managed_pool(int device) {
  const device_scope scope(device);
  if (driver().cuMemGetDefaultMemPool == nullptr) {
    throw std::runtime_error("pools of managed memory need a driver for CUDA 13.0 or newer; this one is for " +
                             std::to_string(driver_version() / 1000) + "." +
                             std::to_string(driver_version() % 1000 / 10));
  }
  if (!device_has_concurrent_managed_access(device)) {
    throw std::runtime_error("pools of managed memory need concurrent managed access, which device " +
                             std::to_string(device) + " does not have");
  }
  CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, {device}};
  CUmemoryPool pool = nullptr;
  CENOTE_DRIVER_CALL(cuMemGetDefaultMemPool, &pool, &location, CU_MEM_ALLOCATION_TYPE_MANAGED);
  return {pool, device};
}

void* memory_pool_ref::allocate(stream_ref stream, std::size_t bytes) const {
  const device_scope scope(device_);
  const relaxed_capture_scope relaxed;
  CUdeviceptr pointer = 0;
  const CUresult result = driver().cuMemAllocFromPoolAsync(&pointer, bytes, handle_, stream.value());
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  check_driver("cuMemAllocFromPoolAsync", result);
  return reinterpret_cast<void*>(pointer);
}

void memory_pool_ref::free(stream_ref stream, void* pointer) const noexcept {
  try {
    const device_scope scope(device_);
    const relaxed_capture_scope relaxed;
    report_driver_failure("cuMemFreeAsync",
                          driver().cuMemFreeAsync(reinterpret_cast<CUdeviceptr>(pointer), stream.value()));
  } catch (const std::exception& error) {
    report_once(error.what());
  }
}

std::size_t memory_pool_ref::used_bytes() const { return pool_attribute(handle_, CU_MEMPOOL_ATTR_USED_MEM_CURRENT); }

std::size_t memory_pool_ref::reserved_bytes() const {
  return pool_attribute(handle_, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
}

void memory_pool_ref::trim(std::size_t keep_bytes) const { CENOTE_DRIVER_CALL(cuMemPoolTrimTo, handle_, keep_bytes); }

}  // namespace cenote
