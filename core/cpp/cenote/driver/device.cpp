#include "cenote/driver/device.hpp"

#include <array>
#include <atomic>
#include <mutex>
#include <stdexcept>

#include "cenote/driver/driver.hpp"
#include "cenote/driver/peer_access.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

std::array<std::atomic<CUcontext>, max_devices> primary_contexts{};

CUdevice device_handle(int device) {
  check_device(device);
  CUdevice handle = 0;
  CENOTE_DRIVER_CALL(cuDeviceGet, &handle, device);
  return handle;
}

/// Retained once per device and never released: the frameworks hold it for the life of the process as well.
CUcontext primary_context(int device) {
  if (device >= 0 && device < max_devices) {
    if (CUcontext known = primary_contexts[static_cast<std::size_t>(device)].load(std::memory_order_acquire)) {
      return known;
    }
  }
  const CUdevice handle = device_handle(device);
  static auto* const mutex = new driver_mutex;
  const std::lock_guard lock(*mutex);
  auto& slot = primary_contexts.at(static_cast<std::size_t>(device));
  if (CUcontext known = slot.load(std::memory_order_acquire)) return known;
  CUcontext context = nullptr;
  CENOTE_DRIVER_CALL(cuDevicePrimaryCtxRetain, &context, handle);
  open_followers_to(device);  // before anybody can use it
  slot.store(context, std::memory_order_release);
  return context;
}

}  // namespace

int device_count() {
  int count = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetCount, &count);
  return count;
}

int current_device() { return chosen_device().value_or(0); }

std::optional<int> chosen_device() {
  CUcontext context = nullptr;
  CENOTE_DRIVER_CALL(cuCtxGetCurrent, &context);
  if (context == nullptr) return std::nullopt;
  CUdevice device = 0;
  CENOTE_DRIVER_CALL(cuCtxGetDevice, &device);
  return device;
}

bool is_in_use(int device) noexcept {
  return primary_contexts[static_cast<std::size_t>(device)].load(std::memory_order_acquire) != nullptr;
}

void check_device(int device, const char* where) {
  const int count = device_count();
  if (device >= 0 && device < count) return;
  throw std::out_of_range(std::string(where) + "there is no device " + std::to_string(device) + ": this machine has " +
                          (count == 1 ? "device 0 only" : "devices 0 to " + std::to_string(count - 1)));
}

std::optional<int> device_to_begin_with() {
  const bool is_only_one = device_count() == 1;
  return is_only_one ? 0 : chosen_device();
}

void set_current_device(int device) {
  check_device(device);
  CENOTE_DRIVER_CALL(cuCtxSetCurrent, primary_context(device));
}

int device_attribute(int device, int attribute) {
  int value = 0;
  CENOTE_DRIVER_CALL(cuDeviceGetAttribute, &value, static_cast<CUdevice_attribute>(attribute), device_handle(device));
  return value;
}

bool device_has_pageable_memory_access(int device) {
  return device_attribute(device, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS) != 0;
}

bool device_has_concurrent_managed_access(int device) {
  return device_attribute(device, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS) != 0;
}

std::string device_name(int device) {
  std::array<char, 256> name{};
  CENOTE_DRIVER_CALL(cuDeviceGetName, name.data(), static_cast<int>(name.size()), device_handle(device));
  return name.data();
}

std::string device_uuid(int device) {
  constexpr const char* digits = "0123456789abcdef";
  CUuuid uuid{};
  CENOTE_DRIVER_CALL(cuDeviceGetUuid, &uuid, device_handle(device));
  std::string text;
  for (const char byte : uuid.bytes) {
    const auto value = static_cast<unsigned char>(byte);
    text += digits[value >> 4];
    text += digits[value & 15];
  }
  return text;
}

int device_compute_capability(int device) {
  return 10 * device_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
         device_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
}

device_memory device_memory_info(int device) {
  const device_scope scope(device);
  device_memory memory{};
  CENOTE_DRIVER_CALL(cuMemGetInfo, &memory.free_bytes, &memory.total_bytes);
  return memory;
}

void synchronize_device(int device) {
  const device_scope scope(device);
  check_driver_beside_captures("cuCtxSynchronize", driver().cuCtxSynchronize());
}

void forget_primary_contexts() noexcept {
  for (auto& context : primary_contexts) context.store(nullptr, std::memory_order_release);
}

device_scope::device_scope(int device) : context_(primary_context(device)), pushed_(false) {
  CUcontext current = nullptr;
  CENOTE_DRIVER_CALL(cuCtxGetCurrent, &current);
  if (current == context_) return;
  CENOTE_DRIVER_CALL(cuCtxPushCurrent, context_);
  pushed_ = true;
}

device_scope::~device_scope() {
  if (!pushed_) return;
  CUcontext popped = nullptr;
  report_driver_failure("cuCtxPopCurrent", driver().cuCtxPopCurrent(&popped));
}

}  // namespace cenote::inline v1
