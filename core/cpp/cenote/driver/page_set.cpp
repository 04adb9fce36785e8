#include "cenote/driver/page_set.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"

namespace cenote::inline v1 {
namespace {

int with_virtual_memory(int device) {
  check_device(device);
  if (has_virtual_memory(device)) return device;
  throw std::runtime_error("device " + std::to_string(device) + ", " + device_name(device) +
                           ", has no virtual memory, so that no two addresses can share a page of it");
}

}  // namespace

page_set::page_set(int device) : device_(with_virtual_memory(device)), mappings_(device, {}) {}

std::byte* page_set::map(std::size_t offset, std::size_t bytes) {
  if (bytes == 0 || offset % page_bytes != 0 || bytes % page_bytes != 0) {
    throw std::invalid_argument("a range of a page set is whole pages of " + std::to_string(page_bytes) + " bytes");
  }
  const std::lock_guard lock(mutex_);
  reap_locked();
  const auto addresses = address_reservation::reserve(device_, bytes, page_bytes);
  if (addresses == nullptr) return nullptr;
  std::byte* const range = addresses->base();
  std::size_t mapped = 0;
  const auto undo = [&] {
    unmap_pages_locked(range, mapped);
    shrink_locked();
  };
  try {
    while (mapped < bytes && show_locked((offset + mapped) / page_bytes, addresses, range + mapped)) {
      mapped += page_bytes;
    }
    if (mapped == bytes) {
      ranges_.emplace(range, bytes);
      return range;
    }
  } catch (...) {
    undo();
    throw;
  }
  undo();
  return nullptr;
}

/// False when memory ran out.
bool page_set::show_locked(std::size_t index, const std::shared_ptr<const address_reservation>& addresses,
                           std::byte* at) {
  while (pages_.size() <= index) {
    auto page = physical_page::create({device_}, page_bytes);
    if (page == nullptr) return false;
    pages_.push_back(std::move(page));
  }
  return mappings_.map(pages_[index], addresses, at, {});
}

bool page_set::unmap(std::byte* range) {
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(range);
  if (found == ranges_.end()) return false;
  retired_.push_back({range, found->second, nullptr});
  ranges_.erase(found);
  mark_retired_locked();
  reap_locked();
  return true;
}

std::size_t page_set::trim(bool waits) {
  std::vector<std::shared_ptr<event>> awaited;
  std::unique_lock lock(mutex_);
  mark_retired_locked();
  if (waits && !is_capture_underway(device_)) {
    for (const retired_range& each : retired_) {
      if (each.done != nullptr) awaited.push_back(each.done);
    }
  }
  lock.unlock();
  for (const auto& each : awaited) each->synchronize();
  lock.lock();
  reap_locked();
  return pages_.size() * page_bytes;
}

void page_set::unmap_pages_locked(std::byte* range, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += page_bytes) mappings_.take(range + at);
}

/// An event after all work of the device would end a capture: what is not marked now is by a later call.
void page_set::mark_retired_locked() {
  const auto is_unmarked = [](const retired_range& each) { return each.done == nullptr; };
  if (std::none_of(retired_.begin(), retired_.end(), is_unmarked) || is_capture_underway(device_)) return;
  const stream_ref aside = aside_stream(device_);
  wait_for_all_work(aside, device_);
  const std::shared_ptr<event> now = event::record(aside, device_);
  for (retired_range& each : retired_) {
    if (each.done == nullptr) each.done = now;
  }
}

void page_set::reap_locked() {
  std::erase_if(retired_, [this](const retired_range& each) {
    if (each.done == nullptr || !each.done->is_complete()) return false;
    unmap_pages_locked(each.at, each.bytes);
    return true;
  });
  shrink_locked();
}

void page_set::shrink_locked() {
  while (!pages_.empty() && pages_.back().use_count() == 1) pages_.pop_back();
}

}  // namespace cenote::inline v1
