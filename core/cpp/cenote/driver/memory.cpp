#include "cenote/driver/memory.hpp"

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/driver/paused_addresses.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

CUdeviceptr device_pointer(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

/// The one place that tells "memory ran out" (null) from "the call failed" (throws).
void* allocated(const char* call, CUresult result, CUdeviceptr pointer) {
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  check_driver(call, result);
  return reinterpret_cast<void*>(pointer);
}

/// Asks the driver, and once more where room could be made. `ask` makes the call and writes the address down.
template <class Ask>
void* asked(const char* call, int device, std::size_t bytes, stream_ref stream, Ask&& ask) {
  CUdeviceptr pointer = 0;
  const int result = ask_for_memory(device, bytes, stream, [&] { return ask(&pointer); });
  return allocated(call, static_cast<CUresult>(result), pointer);
}

/// Managed memory, or memory that the driver does not know and the device can use all the same.
bool may_move(const void* pointer, int device) {
  const memory_kind kind = kind_of(pointer, device);
  return kind == memory_kind::managed || (kind == memory_kind::pageable && device_has_pageable_memory_access(device));
}

constexpr const char* block_is_leaked = "a block is leaked, as freeing it failed: ";

/// Whether the stream may have work that is no part of a graph, and that a wait for `device` does not cover.
bool may_be_at_work_elsewhere(stream_ref stream, int device) noexcept {
  try {
    if (stream.is_legacy_default() || device_count() == 1 || is_capturing(stream, device)) return false;
    return device_of_stream(stream, device) != device;
  } catch (const std::exception& error) {
    report_once(error.what());
    return true;
  }
}

template <class Free>
void free_quietly(int device, void* pointer, const char* call, Free&& free) noexcept {
  if (driver_is_gone()) return;
  try {
    const device_scope scope(device);
    const relaxed_capture_scope relaxed;
    const CUresult result = free();
    if (result == CUDA_SUCCESS) return;
    report_driver_failure(call, result, block_is_leaked);
  } catch (const std::exception& error) {
    report_once(block_is_leaked, error.what());
  }
  free_correction::say(pointer, 0);
}

}  // namespace

void* device_allocate(int device, std::size_t bytes, stream_ref stream) {
  return asked("cuMemAlloc", device, bytes, stream,
               [=](CUdeviceptr* pointer) { return driver().cuMemAlloc(pointer, bytes); });
}

void* managed_allocate(int device, std::size_t bytes, stream_ref stream) {
  return asked("cuMemAllocManaged", device, bytes, stream,
               [=](CUdeviceptr* pointer) { return driver().cuMemAllocManaged(pointer, bytes, CU_MEM_ATTACH_GLOBAL); });
}

void device_free(int device, void* pointer, stream_ref used_on) noexcept {
  free_quietly(device, pointer, "cuMemFree", [=] {
    if (may_be_at_work_elsewhere(used_on, device)) synchronize(used_on, device);
    return driver().cuMemFree(device_pointer(pointer));
  });
}

void* budgeted_allocate(int device, std::size_t bytes, stream_ref stream) {
  return asked("cuMemAlloc", device, bytes, stream, [=](CUdeviceptr* pointer) {
    if (!take_from_budget(device, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult answer = driver().cuMemAlloc(pointer, bytes);
    if (answer != CUDA_SUCCESS) give_back_to_budget(device, bytes);
    return answer;
  });
}

void budgeted_free(int device, void* pointer, std::size_t bytes, stream_ref used_on) noexcept {
  free_quietly(device, pointer, "cuMemFree", [&] {
    // The driver knows what was taken, whatever the program says: of what it does not know, nothing was.
    std::size_t taken = 0;
    const CUresult asked = driver().cuMemGetAddressRange(nullptr, &taken, device_pointer(pointer));
    if (asked == CUDA_SUCCESS) bytes = taken;
    if (asked == CUDA_ERROR_NOT_FOUND || asked == CUDA_ERROR_INVALID_VALUE) bytes = 0;
    if (may_be_at_work_elsewhere(used_on, device)) synchronize(used_on, device);
    return driver().cuMemFree(device_pointer(pointer));
  });
  give_back_to_budget(device, bytes);
}

void* pinned_allocate(int device, std::size_t bytes) {
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  void* pointer = nullptr;
  const CUresult result = driver().cuMemHostAlloc(&pointer, bytes, CU_MEMHOSTALLOC_PORTABLE);
  return allocated("cuMemHostAlloc", result, device_pointer(pointer));
}

void pinned_free(int device, void* pointer) noexcept {
  free_quietly(device, pointer, "cuMemFreeHost", [=] { return driver().cuMemFreeHost(pointer); });
}

void copy_async(void* to, const void* from, std::size_t bytes, stream_ref stream, int device) {
  if (bytes == 0) return;
  paused_addresses::refuse(to, from);
  copy_pages_async(to, from, bytes, stream, device);
}

void copy_pages_async(void* to, const void* from, std::size_t bytes, stream_ref stream, int device) {
  const device_scope scope(device);
  CENOTE_DRIVER_CALL(cuMemcpyAsync, device_pointer(to), device_pointer(from), bytes, stream.value());
}

void fill_async(void* to, unsigned char value, std::size_t bytes, stream_ref stream, int device) {
  if (bytes == 0) return;
  paused_addresses::refuse(to, nullptr);
  fill_pages_async(to, value, bytes, stream, device);
}

void fill_pages_async(void* to, unsigned char value, std::size_t bytes, stream_ref stream, int device) {
  const device_scope scope(device);
  CENOTE_DRIVER_CALL(cuMemsetD8Async, device_pointer(to), value, bytes, stream.value());
}

void prefetch_async(const void* pointer, std::size_t bytes, int location, stream_ref stream, int device) {
  if (bytes == 0 || !device_has_concurrent_managed_access(device)) return;
  if (is_capturing(stream, device) || !accepts_work(stream, device)) return;
  const device_scope scope(device);
  const CUresult result =
      driver().cuMemPrefetchAsync(device_pointer(pointer), bytes, static_cast<CUdevice>(location), stream.value());
  if (result == CUDA_ERROR_INVALID_VALUE && !may_move(pointer, device)) return;
  check_driver("cuMemPrefetchAsync", result);
}

void prefer_location(const void* pointer, std::size_t bytes, int location, int device) {
  if (bytes == 0) return;
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  CENOTE_DRIVER_CALL(cuMemAdvise, device_pointer(pointer), bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION,
                     static_cast<CUdevice>(location));
}

address_range find_address_range(const void* pointer, int device) {
  const device_scope scope(device);
  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  CENOTE_DRIVER_CALL(cuMemGetAddressRange, &base, &bytes, device_pointer(pointer));
  return {reinterpret_cast<void*>(base), bytes};
}

memory_kind kind_of(const void* pointer, int device) {
  const device_scope scope(device);
  unsigned int managed = 0;
  const CUresult result =
      driver().cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, device_pointer(pointer));
  if (result == CUDA_ERROR_INVALID_VALUE) return memory_kind::pageable;
  check_driver("cuPointerGetAttribute", result);
  if (managed != 0) return memory_kind::managed;
  unsigned int type = 0;
  CENOTE_DRIVER_CALL(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, device_pointer(pointer));
  return type == CU_MEMORYTYPE_HOST ? memory_kind::pinned : memory_kind::device;
}

std::optional<int> device_of(const void* pointer, int device) {
  const device_scope scope(device);
  int ordinal = 0;
  const CUresult result =
      driver().cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, device_pointer(pointer));
  if (result == CUDA_ERROR_INVALID_VALUE) return std::nullopt;
  check_driver("cuPointerGetAttribute", result);
  return ordinal;
}

}  // namespace cenote::inline v1
