#include "cenote/surface/reclaimer.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

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

/// Calls `body` for every other device that is in use.
template <class Body>
void reclaimer::for_each_other_device(Body&& body) const {
  for (int device = 0; device < max_devices; ++device) {
    if (device != device_ && is_in_use(device)) body(device);
  }
}

void reclaimer::free_after_all_work(std::shared_ptr<memory_resource> resource, void* pointer, std::size_t bytes,
                                    stream_ref freed_on, reach used_by, std::size_t alignment) noexcept {
  if (driver_is_gone()) return;
  try {
    if (!hold_back({std::move(resource), pointer, bytes, alignment, used_by}, freed_on)) return;
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
    const bool is_elsewhere = freed.used_by == reach::every_device && is_capture_underway_elsewhere();
    if (is_elsewhere || is_capture_underway(device_) || is_capturing(freed_on, device_)) throw;  // or end the capture
  }
  synchronize_device(device_);
  if (freed.used_by == reach::every_device) for_each_other_device(synchronize_device);
  freed.resource->deallocate({}, freed.pointer, freed.bytes, freed.alignment);
  return false;
}

std::size_t reclaimer::held_back() const {
  const std::lock_guard lock(mutex_);
  return pending_.size();
}

void reclaimer::free_pending() noexcept {
  if (driver_is_gone()) return;
  std::list<pending_free> frees;
  try {
    if (is_capture_underway(device_)) return;
    frees = take_what_may_be_freed();
  } catch (const std::exception& error) {
    return report_once(error.what());
  }
  if (frees.empty()) return;
  try {
    free_now(frees);
  } catch (const std::exception& error) {
    report_once("blocks that were freed on another stream than their own are held back: ", error.what());
    put_back(std::move(frees));
  }
}

void reclaimer::free_pending_on_every_device() noexcept {
  for (int device = 0; device < max_devices; ++device) {
    if (is_in_use(device)) of(device).free_pending();
  }
}

bool reclaimer::is_capture_underway_elsewhere() const {
  bool is_any = false;
  for_each_other_device([&](int device) { is_any = is_any || is_capture_underway(device); });
  return is_any;
}

auto reclaimer::take_what_may_be_freed() -> std::list<pending_free> {
  const bool must_spare_others = is_capture_underway_elsewhere();
  std::list<pending_free> taken;
  const std::lock_guard lock(mutex_);
  for (auto next = pending_.begin(); next != pending_.end();) {
    const auto current = next++;
    if (must_spare_others && current->used_by == reach::every_device) continue;
    taken.splice(taken.end(), pending_, current);
  }
  return taken;
}

void reclaimer::free_now(const std::list<pending_free>& frees) {
  const stream_ref aside = aside_stream(device_);
  wait_for_all_work(aside, device_);
  if (std::any_of(frees.begin(), frees.end(), [](const auto& f) { return f.used_by == reach::every_device; })) {
    for_each_other_device([&](int device) { wait_for_all_work_of(device, aside, device_); });
  }
  for (const pending_free& f : frees) f.resource->deallocate(aside, f.pointer, f.bytes, f.alignment);
}

void reclaimer::put_back(std::list<pending_free> frees) noexcept {
  const std::lock_guard lock(mutex_);
  pending_.splice(pending_.end(), frees);
}

}  // namespace cenote::inline v1
