// Which other devices may use the memory of a pool of the driver, or of pages that are mapped.
//
// Plain memory (cuMemAlloc) is copied between devices as it is, and cuCtxEnablePeerAccess, which frameworks call, opens
// it to another device's kernels. Memory of a pool is closed to other devices, also to copies on their streams, until
// cuMemPoolSetAccess names them; and a mapping until cuMemSetAccess does (mapping_table.hpp).
//
//   1. A pool that follows the process is open to the devices that are in use and can reach it: to those that are when
//      it is made, and to each later one before that is used for the first time. A device is in use from the moment
//      that its context is wanted (driver/device.hpp).
//      Mapped memory follows in the same way: it is told of each such device (peer_follower).
//   2. A pool for which devices were named is open to those, from the beginning.
//   3. What a pool is open to stays written down while it waits to be used again (driver/driver_pools.hpp). Its next
//      user changes what differs.
//
// Invariant: I1 a pool that follows is open to each device in use that can reach it, unless the driver refused, which
// is reported once.
// Threads: any. One lock, held during cuMemPoolSetAccess and cuMemSetAccess: where a pool is made, and where a device
// is first used.
// Source: CUDA driver API, section Stream Ordered Memory Allocator; a copy to another device from a pool that is closed
// to it ended with CUDA_ERROR_INVALID_VALUE on two H200.
#pragma once

#include <vector>

#include "cenote/driver/peer_devices.hpp"

struct CUmemPoolHandle_st;

namespace cenote::inline v1 {

/// Throws for named devices that do not exist (std::out_of_range) or cannot reach `device` (std::invalid_argument).
void check_peers(const peer_devices& peers, int device);

/// Opens a pool of `device` to these, and closes it to others that it was open to before. cuda_error if the driver
/// refuses one that was asked for.
void open_to_peers(CUmemPoolHandle_st* pool, int device, const peer_devices& peers);

/// Opens a pool that somebody else owns to devices that were asked for: no others are closed out, and nothing is
/// written down. Throws as check_peers and open_to_peers do.
void open_view_to_peers(CUmemPoolHandle_st* pool, int device, const peer_devices& peers);

/// Memory that follows the process, but for pools of the driver.
class peer_follower {
 public:
  /// Throws where the driver refuses; the memory stays closed to that device then, and this is reported.
  virtual void open_to(int device) = 0;

  /// No device has been used (forget_devices_in_use).
  virtual void forget_devices() noexcept = 0;

 protected:
  ~peer_follower() = default;
};

/// Has memory of `device` opened to the devices in use that can reach it, and to each later one, until
/// stop_following().
void start_following(peer_follower& memory, int device);
void stop_following(peer_follower& memory) noexcept;

/// The other devices that were named, or all that can reach `device`.
std::vector<int> asked_for_peers(const peer_devices& peers, int device);

/// The pool follows the process no more: it waits to be used again.
void stop_following(CUmemPoolHandle_st* pool) noexcept;

/// The pool is about to be destroyed.
void forget_pool(CUmemPoolHandle_st* pool) noexcept;

/// Opens the memory that follows the process to `device`, which is about to be used for the first time.
void open_followers_to(int device) noexcept;

/// No device has been used, and no pool is open (driver_info.hpp: forget_driver).
void forget_devices_in_use() noexcept;

}  // namespace cenote::inline v1
