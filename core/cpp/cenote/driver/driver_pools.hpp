// The driver pools that cenote made on a device: those in use, and those that wait to be used again.
//
// The driver may crash when a pool is destroyed while other threads allocate, free or synchronise, on whatever pools
// (decision 0008). So a pool that nobody else knows of is not destroyed: it is kept, and the next one that is wanted is
// that. It can always be kept, as its place is there from the start.
//
// Memory that was freed to a driver pool goes back to the device only after a wait, on the host, for the stream that it
// was freed on or for the whole context; and then by a trim. Until then it is missing to others, although nobody uses
// it. make_room() does both for whoever was refused memory.
//
// Threads: any. `mutex_` guards the list, and is held around calls that name a pool of it, so that none is destroyed
// meanwhile; no wait is made under it.
// Source: asking, waiting and trimming on an H200, driver 580: what was freed on a non-blocking stream stayed the
// pool's after waits for other streams.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"

struct CUmemPoolHandle_st;

namespace cenote::inline v1 {

/// Those of one device. The ones that wait all have the same properties.
class driver_pools {
 public:
  CENOTE_EXPORT static driver_pools& of(int device);

  /// How many wait to be used again.
  CENOTE_EXPORT std::size_t idle() const noexcept;

  /// One that waits; null where there is none.
  CUmemPoolHandle_st* take() noexcept;

  /// A new one, which `make_pool` makes of the driver.
  CUmemPoolHandle_st* make(const std::function<CUmemPoolHandle_st*()>& make_pool);

  /// From now on the pool waits to be used again.
  void keep(CUmemPoolHandle_st* unused) noexcept;

  /// Destroys a pool that others know of. Throws cuda_error.
  void destroy(CUmemPoolHandle_st* pool);

  /// Bytes that nobody uses: of these pools, and of `another` if that is not null.
  std::size_t unused_bytes(CUmemPoolHandle_st* another) const;

  /// Bytes that nobody uses of one that cenote made; nothing if it is somebody else's.
  std::optional<std::size_t> unused_bytes_of(CUmemPoolHandle_st* pool) const;

  /// Bytes that these pools have taken of the device.
  std::size_t reserved_bytes() const;

  /// Gives them back to the device, as far as the host has waited for the work that used them.
  CENOTE_EXPORT void trim(CUmemPoolHandle_st* another);

  /// How often that was done.
  std::uint64_t trims() const noexcept { return trims_.load(std::memory_order_acquire); }

 private:
  struct place {
    CUmemPoolHandle_st* pool;
    bool is_idle;
  };

  mutable driver_mutex mutex_;  // guards `places_`
  std::vector<place> places_;
  std::atomic<std::uint64_t> trims_{0};
};

/// A request that the driver has refused.
struct refused_request {
  int device;
  std::size_t bytes;
  stream_ref stream;         ///< that it was for
  CUmemPoolHandle_st* pool;  ///< that was asked; null if none was
  std::uint64_t trims;       ///< driver_pools::trims() before the driver was asked
};

/// Waits for work of the device and gives back what lies unused in driver pools: those of cenote, and the one that was
/// asked. Only where that is enough together with what is free. Work of the legacy default stream and of blocking ones
/// is waited for first; all work of the device only if that was not enough, and not beside a capture that is known of
/// (is_capture_underway), which that would end. False where asking again is of no use.
bool make_room(const refused_request& refused);

/// Makes a call that takes memory of the driver, and makes it once more where memory ran out and make_room() helped.
/// `ask` answers a CUresult, and so does this. The device is current, and captures of other streams forbid nothing.
int ask_for_memory(int device, std::size_t bytes, stream_ref stream, const std::function<int()>& ask);

}  // namespace cenote::inline v1
