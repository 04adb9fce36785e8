// Devices: how many there are, which one is current, its memory, and the scope in which calls go to one of them.
//
// As the frameworks do, cenote uses each device's primary context, retained once and kept for the process. A
// device_scope makes it current for a few driver calls, whatever device the caller has chosen, and puts the caller's
// back. Cost: 8 ns where the device is current already, 32 ns where it is not (driver 580, H100).
#pragma once

#include <cstddef>
#include <optional>
#include <string>

struct CUctx_st;

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// The CUDA runtime enumerates no more.
constexpr int max_devices = 64;

struct device_memory {
  std::size_t free_bytes;
  std::size_t total_bytes;
};

CENOTE_EXPORT int device_count();

/// The device of the calling thread's current context; 0 where there is none, as in the CUDA runtime.
CENOTE_EXPORT int current_device();

/// The device of the calling thread's current context; none where it has not chosen one.
CENOTE_EXPORT std::optional<int> chosen_device();

/// That one, or the only one there is: a device that may be used before the program has said more.
CENOTE_EXPORT std::optional<int> device_to_begin_with();

/// Makes the device's primary context current on the calling thread, as cudaSetDevice does.
CENOTE_EXPORT void set_current_device(int device);

/// Whether cenote has used the device in this process.
CENOTE_EXPORT bool is_in_use(int device) noexcept;

/// Throws std::out_of_range unless `device` is one of 0 … device_count() - 1; `where` begins its text.
CENOTE_EXPORT void check_device(int device, const char* where = "");

CENOTE_EXPORT std::string device_name(int device);

/// 32 hexadecimal digits, which are the same in every process: of the MIG instance where the device is one.
CENOTE_EXPORT std::string device_uuid(int device);

/// The driver's answer for a CUdevice_attribute, by its number (which is the CUDA runtime's as well).
CENOTE_EXPORT int device_attribute(int device, int attribute);

/// Whether the device can use any memory of the host, such as malloc's.
CENOTE_EXPORT bool device_has_pageable_memory_access(int device);

/// Whether host and device may use managed memory at the same time; without it nothing can be prefetched.
CENOTE_EXPORT bool device_has_concurrent_managed_access(int device);

/// 10 * major + minor of the device's compute capability.
CENOTE_EXPORT int device_compute_capability(int device);

/// What cuMemGetInfo says of the device.
CENOTE_EXPORT device_memory device_memory_info(int device);

/// Waits, on the host, for all work of the device's primary context.
CENOTE_EXPORT void synchronize_device(int device);

/// Asks for them again (driver_info.hpp: forget_driver).
CENOTE_EXPORT void forget_primary_contexts() noexcept;

class device_scope {
 public:
  explicit device_scope(int device);
  ~device_scope();
  device_scope(const device_scope&) = delete;
  device_scope& operator=(const device_scope&) = delete;

  CUctx_st* context() const noexcept { return context_; }

 private:
  CUctx_st* context_;
  bool pushed_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
