// Pools of the driver (CUmemoryPool): stream-ordered allocation from somebody's pool, and a pool of our own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cenote/driver/peer_devices.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

struct CUmemPoolHandle_st;

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A pool that somebody else owns, as a value: the driver's handle and the device that its streams belong to.
class memory_pool_ref {
 public:
  memory_pool_ref(CUmemPoolHandle_st* handle, int device) noexcept : handle_(handle), device_(device) {}

  /// Null when memory ran out, also after what lies unused in pools was given back (driver_pools.hpp); throws
  /// cuda_error for any other failure.
  void* allocate(stream_ref stream, std::size_t bytes) const;
  void free(stream_ref stream, void* pointer) const noexcept;

  std::size_t used_bytes() const;
  std::size_t reserved_bytes() const;

  /// Gives memory back to the device until at most `keep_bytes` are held, as far as it is unused.
  void trim(std::size_t keep_bytes) const;

  CUmemPoolHandle_st* value() const noexcept { return handle_; }
  int device() const noexcept { return device_; }

 private:
  CUmemPoolHandle_st* handle_;
  int device_;
};

/// The driver's own pool of managed memory on `device`; it is never destroyed. std::runtime_error where there is none:
/// the driver is older than 13.0, or the device has no concurrent managed access.
CENOTE_EXPORT memory_pool_ref default_managed_pool(int device);

/// While it lives, that pool keeps what is freed to it over a synchronisation, unless somebody else has set its release
/// threshold: the driver's own is 0, so that each allocation after a synchronisation would map memory anew. With the
/// last one of the device the threshold is 0 again, and what is unused goes back.
class managed_pool_use {
 public:
  /// Throws as default_managed_pool.
  explicit managed_pool_use(int device);
  ~managed_pool_use();
  managed_pool_use(const managed_pool_use&) = delete;
  managed_pool_use& operator=(const managed_pool_use&) = delete;

  memory_pool_ref view() const noexcept { return pool_; }

 private:
  memory_pool_ref pool_;
};

/// How memory of the pool may be shared with other processes.
struct export_handles {
  bool posix_file_descriptor = false;
  bool fabric = false;
};

/// A pool of our own. One that nobody else knows of is used again after it (driver/driver_pools.hpp).
class memory_pool {
 public:
  /// `release_threshold`: bytes that the pool keeps when the device is synchronised. Throws as check_peers does.
  memory_pool(int device, std::uint64_t release_threshold, export_handles handles, const peer_devices& peers = {});
  ~memory_pool();
  memory_pool(const memory_pool&) = delete;
  memory_pool& operator=(const memory_pool&) = delete;

  memory_pool_ref view() const noexcept { return {handle_, device_}; }

  /// The handle, for others, who may change the pool's settings and keep the handle: it ends with this object.
  CUmemPoolHandle_st* share() const noexcept;

 private:
  /// Destroys the pool if it is shared; else it is kept for the next one of the device. Memory that is still being
  /// freed goes back to the device at the next synchronisation, or where room is made; all other now.
  void end() const noexcept;

  CUmemPoolHandle_st* handle_ = nullptr;
  int device_;
  mutable std::atomic<bool> is_shared_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
