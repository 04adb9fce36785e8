// The driver's own memory: allocate and free of each kind, copies, and what a pointer is.
//
// `*_allocate` returns null when memory ran out and throws cuda_error for any other failure; `*_free` cannot throw.
// All sizes are in bytes. The device is made current around each call.
#pragma once

#include <cstddef>
#include <optional>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// For work on `stream`; usable on every other as well. Where the driver has no memory left, it is asked again after
/// what lies unused in its pools was given back (driver_pools.hpp): the host may wait for work of the device.
CENOTE_EXPORT void* device_allocate(int device, std::size_t bytes, stream_ref stream = {});
CENOTE_EXPORT void* managed_allocate(int device, std::size_t bytes, stream_ref stream = {});

/// Frees managed memory too. Waits for all work of the device, and for that of `used_on` where it is another device's.
CENOTE_EXPORT void device_free(int device, void* pointer, stream_ref used_on = {}) noexcept;

/// Device memory that counts for the device's budget (device_budget.hpp): null also where that has no room. What is
/// freed counts as what it is for the driver, even if `bytes` is wrong.
CENOTE_EXPORT void* budgeted_allocate(int device, std::size_t bytes, stream_ref stream = {});
CENOTE_EXPORT void budgeted_free(int device, void* pointer, std::size_t bytes, stream_ref used_on = {}) noexcept;

CENOTE_EXPORT void* pinned_allocate(int device, std::size_t bytes);
CENOTE_EXPORT void pinned_free(int device, void* pointer) noexcept;

/// Copies in stream order; either side may be host or device memory. From pageable host memory the source may be
/// changed as soon as this returns. Throws std::runtime_error where one side is paused.
CENOTE_EXPORT void copy_async(void* to, const void* from, std::size_t bytes, stream_ref stream, int device);

/// Sets each byte in stream order. Throws as copy_async does.
CENOTE_EXPORT void fill_async(void* to, unsigned char value, std::size_t bytes, stream_ref stream, int device);

/// Where memory that moves between host and devices is wanted: a device's number, or the host.
constexpr int host_location = -1;  // CU_DEVICE_CPU

/// Moves managed memory, or memory of the host that the device can use, to `location` in stream order. Does nothing for
/// memory that does not move, where `device` has no concurrent managed access, on a stream that is being captured, and
/// on the legacy default stream while a blocking one is: a prefetch would end the capture.
CENOTE_EXPORT void prefetch_async(const void* pointer, std::size_t bytes, int location, stream_ref stream, int device);

/// Where the driver should keep the memory, as far as it can (CU_MEM_ADVISE_SET_PREFERRED_LOCATION).
CENOTE_EXPORT void prefer_location(const void* pointer, std::size_t bytes, int location, int device);

/// The allocation of the driver that `pointer` lies in.
struct address_range {
  void* base;
  std::size_t bytes;
};
CENOTE_EXPORT address_range find_address_range(const void* pointer, int device);

/// What kind of memory the driver says that `pointer` is in; `pageable` where it does not know the pointer.
enum class memory_kind { pageable, device, pinned, managed };
CENOTE_EXPORT memory_kind kind_of(const void* pointer, int device);

/// The device that `pointer` belongs to; nothing where the driver does not know the pointer.
CENOTE_EXPORT std::optional<int> device_of(const void* pointer, int device);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
