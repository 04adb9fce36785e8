#include "cenote/pool/mapped_pages.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/reports.hpp"

namespace cenote::inline v1::pool {
namespace {

constexpr std::size_t ranges_per_device = 4;  // addresses for each byte of the device
constexpr std::size_t pages_to_the_limit = 64;

std::shared_ptr<const address_reservation> reserve_range(int device) {
  const std::size_t wanted = ranges_per_device * device_memory_info(device).total_bytes;
  const std::size_t most = align_down(max_block_bytes, page_map::max_page_bytes);
  std::size_t bytes = std::min(align_up(wanted, page_map::max_page_bytes), most);
  for (;; bytes = align_up(bytes / 2, page_map::max_page_bytes)) {
    if (auto range = address_reservation::reserve(device, bytes, page_map::max_page_bytes)) return range;
    if (bytes <= page_map::max_page_bytes) throw out_of_memory("the pool's addresses", bytes, {});
  }
}

bool is_complete_or_report(const event* used) noexcept {
  try {
    return used == nullptr || used->is_complete();
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace

mapped_pages::mapped_pages(const page_properties& properties, const peer_devices& peers,
                           std::optional<std::size_t> maximum)
    : properties_(properties),
      maximum_(maximum),
      addresses_(reserve_range(properties.device)),
      mappings_(properties.device, peers) {}

std::size_t mapped_pages::room(std::size_t bound) const noexcept {
  const std::size_t most = std::min(bound, maximum_.value_or(max_allocation));
  return most - std::min(most, held());
}

std::size_t mapped_pages::page_bytes_to_grow(std::size_t bytes) const noexcept {
  const std::size_t by_size = (held() + bytes) / pages_of_a_pool_;
  const std::size_t by_the_limit = maximum_ ? room(*maximum_) / pages_to_the_limit : max_allocation;
  return std::clamp(std::bit_floor(std::min(by_size, by_the_limit)), page_map::slot_bytes, page_map::max_page_bytes);
}

bool mapped_pages::bring(const paged_range::filling& wanted, stream_ref stream) {
  auto physical = wanted.from != nullptr ? mappings_.page_at(wanted.from)
                                         : physical_page::create(properties_, wanted.to.bytes, stream);
  if (physical == nullptr || !mappings_.map(std::move(physical), addresses_, wanted.to.address, stream)) return false;
  if (wanted.from == nullptr) held_.fetch_add(wanted.to.bytes, std::memory_order_relaxed);
  return true;
}

void mapped_pages::undo(const paged_range::filling& brought) noexcept { drop(mappings_.take(brought.to.address)); }

std::shared_ptr<const physical_page> mapped_pages::hide(const page& shown) {
  page_mapping mapping = mappings_.take(shown.address);
  std::shared_ptr<const physical_page> hidden = mapping.page();
  try {
    mapping.unmap();
  } catch (...) {
    mappings_.put_back(std::move(mapping));
    throw;
  }
  return hidden;
}

bool mapped_pages::show(std::shared_ptr<const physical_page> hidden, std::byte* at) {
  return mappings_.map(std::move(hidden), addresses_, at, {});
}

void mapped_pages::retire(const page& old, std::shared_ptr<event> used) noexcept {
  retired_.push_back({mappings_.take(old.address), old, std::move(used)});
}

std::vector<page> mapped_pages::reap() {
  std::vector<page> gone;
  gone.reserve(retired_.size());  // nothing below throws
  std::size_t kept = 0;
  for (retired& each : retired_) {
    if (is_complete_or_report(each.used.get())) {
      gone.push_back(each.at);
      drop(std::move(each.mapping));
    } else {
      std::swap(retired_[kept++], each);
    }
  }
  retired_.erase(retired_.begin() + static_cast<std::ptrdiff_t>(kept), retired_.end());
  return gone;
}

/// Unmaps; with its last address, the page's memory goes back to the device.
void mapped_pages::drop(page_mapping mapping) noexcept {
  const std::size_t bytes = mapping.page().use_count() == 1 ? mapping.page()->bytes() : 0;
  mapping = page_mapping();
  held_.fetch_sub(bytes, std::memory_order_relaxed);
}

}  // namespace cenote::inline v1::pool
