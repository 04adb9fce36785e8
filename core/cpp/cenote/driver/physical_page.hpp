// A page: physical memory of a device behind one handle of the driver (cuMemCreate), to be mapped at addresses.
//
// A page has no address of its own. page_mapping shows it at one, or at several at once, which are then the same
// memory. It can be mapped only whole.
//
// A page is held by shared_ptr, because several mappings may show it, and because it must outlive each of them. That is
// cheap enough: a mapping costs 40 microseconds and more in the driver, and counting a reference a few nanoseconds; a
// page takes some 70 bytes of the host, so that a pool of a thousand pages spends 70 KiB on them.
//
// Threads: any; a page does not change.
// Cost: 17 to 22 microseconds to create, 19 to 40 to release, of whatever size up to 32 MiB.
// Source: measured on an H200, driver 580.159.04. No call of the virtual memory interface waits for work of the device,
// and each is legal in a capture of any mode (the same on an H100).
#pragma once

#include <cstddef>
#include <memory>

#include "cenote/driver/memory_pool.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {

/// Whether the device has virtual memory: a vGPU may have none.
bool has_virtual_memory(int device);

/// Whether other processes can map pages of the device, by file descriptors.
bool has_page_descriptors(int device);

/// Bytes of which sizes of pages and reservations, and addresses of mappings, are multiples.
std::size_t virtual_memory_granularity(int device);

struct page_properties {
  int device = 0;
  export_handles handles{};  ///< how the page may be shared with other processes; it is asked for at creation only
  bool for_rdma = false;     ///< a network card will read and write it, where the device can ask for that
};

class physical_page {
 public:
  /// Null when memory ran out, also after what lies unused in driver pools was given back (driver_pools.hpp); throws
  /// cuda_error for any other failure, such as a size that is no multiple of the granularity. The page is for work on
  /// `stream`, and usable on every other one as well.
  static std::shared_ptr<const physical_page> create(const page_properties& properties, std::size_t bytes,
                                                     stream_ref stream = {});

  /// Another process's page, by what it was exported as; `device` and `bytes` are what that one has said of it. Throws
  /// cuda_error.
  static std::shared_ptr<const physical_page> import(int device, std::size_t bytes, const file_descriptor& exported);

  /// Gives the memory back to the device, without waiting for its work.
  ~physical_page();
  physical_page(const physical_page&) = delete;
  physical_page& operator=(const physical_page&) = delete;

  int device() const noexcept { return device_; }
  std::size_t bytes() const noexcept { return bytes_; }

  /// The driver's handle (CUmemGenericAllocationHandle).
  unsigned long long value() const noexcept { return handle_; }

 private:
  physical_page(int device, std::size_t bytes, bool is_own = true) noexcept
      : bytes_(bytes), device_(device), is_own_(is_own) {}

  unsigned long long handle_ = 0;  // no handle is 0
  std::size_t bytes_;
  int device_;
  bool is_own_;  // else it counts for another process's budget
};

}  // namespace cenote::inline v1
