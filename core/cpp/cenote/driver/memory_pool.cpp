#include "cenote/driver/memory_pool.hpp"

#include <array>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/driver/memory_properties.hpp"
#include "cenote/driver/peer_access.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/ladder.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

void check_supported(int device, int wanted) {
  int pools = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetAttribute, &pools, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device);
  if (pools == 0) throw std::runtime_error("the driver has no memory pools on device " + std::to_string(device));
  int kinds = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetAttribute, &kinds, CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, device);
  if ((kinds & wanted) != wanted) throw std::runtime_error("Requested IPC memory handle type not supported");
}

CUmemoryPool make_pool(int device, int types) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = static_cast<CUmemAllocationHandleType>(types);
  properties.location = location_of(device);
  if (has_decompression_engine(device)) properties.usage = CU_MEM_POOL_CREATE_USAGE_HW_DECOMPRESS;
  CUmemoryPool made = nullptr;
  CENOTE_DRIVER_CALL(cuMemPoolCreate, &made, &properties);
  return made;
}

CUresult set_release_threshold(CUmemoryPool pool, cuuint64_t bytes) {
  return driver().cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes);
}

std::size_t pool_attribute(CUmemoryPool pool, CUmemPool_attribute attribute) {
  const relaxed_capture_scope relaxed;
  cuuint64_t value = 0;
  CENOTE_DRIVER_CALL(cuMemPoolGetAttribute, pool, attribute, &value);
  return value;
}

}  // namespace

memory_pool::memory_pool(int device, std::uint64_t release_threshold, export_handles handles, const peer_devices& peers)
    : device_(device), is_shared_(handle_types(handles) != 0) {
  const int types = handle_types(handles);
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  check_supported(device, types);
  check_peers(peers, device);
  driver_pools& pools = driver_pools::of(device);
  if (!is_shared_) handle_ = pools.take();
  if (handle_ == nullptr) handle_ = pools.make([=] { return make_pool(device, types); });
  try {
    check_driver("cuMemPoolSetAttribute", set_release_threshold(handle_, release_threshold));
    open_to_peers(handle_, device, peers);
  } catch (...) {
    end();
    throw;
  }
}

memory_pool::~memory_pool() {
  if (!driver_is_gone()) end();
}

CUmemPoolHandle_st* memory_pool::share() const noexcept {
  is_shared_ = true;
  return handle_;
}

void memory_pool::end() const noexcept {
  try {
    const relaxed_capture_scope relaxed;
    stop_following(handle_);
    if (is_shared_) {
      forget_pool(handle_);
      return driver_pools::of(device_).destroy(handle_);
    }
    const CUresult result = set_release_threshold(handle_, 0);
    const CUresult trimmed = driver().cuMemPoolTrimTo(handle_, 0);
    driver_pools::of(device_).keep(handle_);  // make_room() finds what it holds still
    check_driver("cuMemPoolSetAttribute", result);
    check_driver("cuMemPoolTrimTo", trimmed);
  } catch (const std::exception& error) {
    report_once(error.what());
  }
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
  CUmemLocation location = location_of(device);
  CUmemoryPool pool = nullptr;
  CENOTE_DRIVER_CALL(cuMemGetDefaultMemPool, &pool, &location, CU_MEM_ALLOCATION_TYPE_MANAGED);
  return {pool, device};
}

namespace {

/// How many managed_pool_use there are on each device.
struct managed_pool_users {
  driver_mutex mutex;  // guards `count`, and is held while thresholds are set
  std::array<std::size_t, max_devices> count{};

  static managed_pool_users& all() {
    static immortal<managed_pool_users> users;  // resources may outlive static objects
    return *users;
  }
};

/// Sets the threshold if it is what it is said to be.
void change_release_threshold(CUmemoryPool pool, cuuint64_t from, cuuint64_t to) {
  if (pool_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) != from) return;
  const relaxed_capture_scope relaxed;
  check_driver("cuMemPoolSetAttribute", set_release_threshold(pool, to));
}

constexpr cuuint64_t keeps_all = std::numeric_limits<cuuint64_t>::max();

}  // namespace

managed_pool_use::managed_pool_use(int device) : pool_(default_managed_pool(device)) {
  managed_pool_users& users = managed_pool_users::all();
  const std::lock_guard lock(users.mutex);
  std::size_t& count = users.count.at(static_cast<std::size_t>(device));
  if (count == 0) change_release_threshold(pool_.value(), 0, keeps_all);
  ++count;
}

managed_pool_use::~managed_pool_use() {
  if (driver_is_gone()) return;
  managed_pool_users& users = managed_pool_users::all();
  const std::lock_guard lock(users.mutex);
  if (--users.count.at(static_cast<std::size_t>(pool_.device())) != 0) return;
  try {
    change_release_threshold(pool_.value(), keeps_all, 0);
    pool_.trim(0);
  } catch (const std::exception& error) {
    report_once(error.what());
  }
}

void* memory_pool_ref::allocate(stream_ref stream, std::size_t bytes) const {
  const device_scope scope(device_);
  const relaxed_capture_scope relaxed;
  const std::uint64_t trims = driver_pools::of(device_).trims();
  CUdeviceptr pointer = 0;
  const auto ask = [&] {
    if (!has_room_in_budget(device_, handle_, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    return driver().cuMemAllocFromPoolAsync(&pointer, bytes, handle_, stream.value());
  };
  CUresult result = ask();
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    const ladder::climb climbing;
    const bool is_worth_asking = make_room({device_, bytes, stream, handle_, trims});
    if (is_worth_asking) result = ask();
    ladder::note("waiting for frees of the driver's pools, and trimming them", std::nullopt,
                 is_worth_asking ? "" : "skipped: they have too little that is unused");
  }
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  check_driver("cuMemAllocFromPoolAsync", result);
  return reinterpret_cast<void*>(pointer);
}

void memory_pool_ref::free(stream_ref stream, void* pointer) const noexcept {
  try {
    const device_scope scope(device_);
    const relaxed_capture_scope relaxed;
    const CUresult result = driver().cuMemFreeAsync(reinterpret_cast<CUdeviceptr>(pointer), stream.value());
    if (result == CUDA_SUCCESS) return;
    report_driver_failure("cuMemFreeAsync", result, "a block is leaked, as freeing it failed: ");
  } catch (const std::exception& error) {
    report_once("a block is leaked, as freeing it failed: ", error.what());
  }
  free_correction::say(pointer, 0);
}

std::size_t memory_pool_ref::used_bytes() const { return pool_attribute(handle_, CU_MEMPOOL_ATTR_USED_MEM_CURRENT); }

std::size_t memory_pool_ref::reserved_bytes() const {
  return pool_attribute(handle_, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
}

void memory_pool_ref::trim(std::size_t keep_bytes) const {
  const relaxed_capture_scope relaxed;
  CENOTE_DRIVER_CALL(cuMemPoolTrimTo, handle_, keep_bytes);
}

}  // namespace cenote::inline v1
