#include "cenote/driver/driver_pools.hpp"

#include <algorithm>
#include <array>

#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/immortal.hpp"

namespace cenote::inline v1 {
namespace {

std::size_t unused_bytes_in(CUmemoryPool pool) {
  cuuint64_t used = 0;
  cuuint64_t reserved = 0;
  CENOTE_DRIVER_CALL(cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used);
  CENOTE_DRIVER_CALL(cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
  return reserved - std::min(used, reserved);  // others may allocate between the two questions
}

}  // namespace

driver_pools& driver_pools::of(int device) {
  static immortal<std::array<driver_pools, max_devices>> all;  // resources may outlive static objects
  return all->at(static_cast<std::size_t>(device));
}

std::size_t driver_pools::idle() const noexcept {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::ranges::count_if(places_, &place::is_idle));
}

CUmemPoolHandle_st* driver_pools::take() noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(places_, &place::is_idle);
  if (found == places_.end()) return nullptr;
  found->is_idle = false;
  return found->pool;
}

CUmemPoolHandle_st* driver_pools::make(const std::function<CUmemPoolHandle_st*()>& make_pool) {
  const std::lock_guard lock(mutex_);
  places_.reserve(places_.size() + 1);
  places_.push_back({make_pool(), false});
  return places_.back().pool;
}

void driver_pools::keep(CUmemPoolHandle_st* unused) noexcept {
  const std::lock_guard lock(mutex_);
  std::ranges::find(places_, unused, &place::pool)->is_idle = true;
}

void driver_pools::destroy(CUmemPoolHandle_st* pool) {
  const std::lock_guard lock(mutex_);
  std::erase_if(places_, [=](const place& each) { return each.pool == pool; });
  CENOTE_DRIVER_CALL(cuMemPoolDestroy, pool);
}

std::size_t driver_pools::unused_bytes(CUmemPoolHandle_st* another) const {
  const relaxed_capture_scope relaxed;
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  bool is_counted = another == nullptr;
  for (const place& each : places_) {
    bytes += unused_bytes_in(each.pool);
    is_counted = is_counted || each.pool == another;
  }
  return is_counted ? bytes : bytes + unused_bytes_in(another);
}

std::optional<std::size_t> driver_pools::unused_bytes_of(CUmemPoolHandle_st* pool) const {
  const relaxed_capture_scope relaxed;
  const std::lock_guard lock(mutex_);
  if (std::ranges::find(places_, pool, &place::pool) == places_.end()) return std::nullopt;
  return unused_bytes_in(pool);
}

std::size_t driver_pools::reserved_bytes() const {
  const relaxed_capture_scope relaxed;
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  for (const place& each : places_) {
    cuuint64_t reserved = 0;
    CENOTE_DRIVER_CALL(cuMemPoolGetAttribute, each.pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
    bytes += reserved;
  }
  return bytes;
}

void driver_pools::trim(CUmemPoolHandle_st* another) {
  const relaxed_capture_scope relaxed;
  const std::lock_guard lock(mutex_);
  if (another != nullptr) CENOTE_DRIVER_CALL(cuMemPoolTrimTo, another, 0);
  for (const place& each : places_) CENOTE_DRIVER_CALL(cuMemPoolTrimTo, each.pool, 0);
  trims_.fetch_add(1, std::memory_order_release);
}

bool make_room(const refused_request& refused) {
  const auto [device, bytes, stream, pool, trims] = refused;
  driver_pools& pools = driver_pools::of(device);
  if (pools.trims() != trims) return true;  // another thread did, after the driver had refused or just before
  const within_capture_scope within(is_capturing(stream, device));
  const bool is_there_more = do_what_was_put_off(device);
  const std::size_t unused = pools.unused_bytes(pool);
  if (unused == 0 || device_memory_info(device).free_bytes + unused < bytes) return is_there_more;
  // Most of it was freed on the legacy default stream or on blocking ones, and this ends no capture.
  unnamed_stream(device).synchronize();
  pools.trim(pool);
  if (device_memory_info(device).free_bytes >= bytes) return true;
  if (is_capture_underway(device)) return is_there_more;
  synchronize_device(device);
  pools.trim(pool);
  return true;
}

int ask_for_memory(int device, std::size_t bytes, stream_ref stream, const std::function<int()>& ask) {
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  const std::uint64_t trims = driver_pools::of(device).trims();
  const int result = ask();
  if (result != CUDA_ERROR_OUT_OF_MEMORY || !make_room({device, bytes, stream, nullptr, trims})) return result;
  return ask();
}

}  // namespace cenote::inline v1
