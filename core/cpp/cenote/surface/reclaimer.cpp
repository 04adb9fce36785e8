#include "cenote/surface/reclaimer.hpp"

#include <array>
#include <optional>
#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process.hpp"

namespace cenote {

reclaimer& reclaimer::of(int device) {
  struct table {
    driver_mutex mutex;  // guards the rest
    std::array<std::optional<reclaimer>, max_devices> places;
  };
  static immortal<table> all;
  const std::lock_guard lock(all->mutex);
  auto& place = all->places.at(static_cast<std::size_t>(device));
  return place ? *place : place.emplace(device);
}

void reclaimer::free_after_all_work(std::shared_ptr<memory_resource> resource, void* pointer, std::size_t bytes,
                                    stream_ref freed_on) noexcept {
  if (driver_is_gone()) return;
  try {
    if (!hold_back({std::move(resource), pointer, bytes}, freed_on)) return;
    if (!is_capturing(freed_on, device_)) free_pending();
  } catch (const std::exception& error) {
    report_once("a block is leaked, as freeing it on another stream than its own failed: ", error.what());
  }
}

/// False where the host has no memory for that: then it is freed already, after the host has waited for all work.
bool reclaimer::hold_back(pending_free freed, stream_ref freed_on) {
  try {
    const std::lock_guard lock(mutex_);
    pending_.push_back(freed);
    return true;
  } catch (const std::bad_alloc&) {
    if (is_capture_underway(device_) || is_capturing(freed_on, device_)) throw;  // waiting would invalidate it
  }
  synchronize_device(device_);
  freed.resource->deallocate({}, freed.pointer, freed.bytes);
  return false;
}

std::size_t reclaimer::held_back() const {
  const std::lock_guard lock(mutex_);
  return pending_.size();
}

void reclaimer::free_pending() noexcept {
  if (driver_is_gone()) return;
  try {
    if (is_capture_underway(device_)) return;
  } catch (const std::exception& error) {
    return report_once(error.what());
  }
  std::list<pending_free> frees;
  {
    const std::lock_guard lock(mutex_);
    frees.swap(pending_);
  }
  if (frees.empty()) return;
  try {
    free_now(frees);
  } catch (const std::exception& error) {
    report_once("blocks that were freed on another stream than their own are held back: ", error.what());
    put_back(std::move(frees));
  }
}

void reclaimer::free_now(const std::list<pending_free>& frees) {
  const stream_ref ours = own_stream();
  wait_for_all_work(ours, device_);
  for (const pending_free& f : frees) f.resource->deallocate(ours, f.pointer, f.bytes);
}

void reclaimer::put_back(std::list<pending_free> frees) noexcept {
  const std::lock_guard lock(mutex_);
  pending_.splice(pending_.end(), frees);
}

stream_ref reclaimer::own_stream() {
  {
    const std::lock_guard lock(mutex_);
    if (stream_) return stream_->view();
  }
  auto fresh = std::make_unique<cuda_stream>(device_, cuda_stream::kind::non_blocking);
  const std::lock_guard lock(mutex_);
  if (!stream_) stream_.swap(fresh);
  return stream_->view();
}

}  // namespace cenote
