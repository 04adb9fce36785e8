#include "cenote/driver/mapping_table.hpp"

#include <mutex>
#include <utility>

#include "cenote/ground/error.hpp"
#include "cenote/ground/reports.hpp"

namespace cenote::inline v1 {

mapping_table::mapping_table(int device, const peer_devices& peers)
    : device_(device), follows_(peers.which == peer_devices::choice::in_use) {
  if (follows_) {
    start_following(*this, device);
  } else {
    check_peers(peers, device);
    peers_ = asked_for_peers(peers, device);
  }
}

mapping_table::~mapping_table() {
  if (follows_) stop_following(*this);
}

/// A device that was not asked for must not fail the caller.
page_mapping mapping_table::make(const std::shared_ptr<const physical_page>& page,
                                 const std::shared_ptr<const address_reservation>& addresses, std::byte* at,
                                 const std::vector<int>& peers, stream_ref stream) const {
  try {
    return page_mapping::map(page, addresses, at, peers, stream);
  } catch (const cuda_error& error) {
    if (!follows_ || peers.empty()) throw;
    page_mapping closed = page_mapping::map(page, addresses, at, {}, stream);
    report_once("memory of device ", device_, " stays closed to others: ", error.what());
    return closed;
  }
}

bool mapping_table::map(std::shared_ptr<const physical_page> page, std::shared_ptr<const address_reservation> addresses,
                        std::byte* at, stream_ref stream) {
  std::vector<int> peers;
  {
    const std::lock_guard lock(mutex_);
    peers = peers_;
  }
  page_mapping made = make(page, addresses, at, peers, stream);
  if (!made) return false;
  const std::lock_guard lock(mutex_);
  for (std::size_t later = peers.size(); later < peers_.size(); ++later) made.open_to(peers_[later]);
  by_address_.emplace(at, std::move(made));
  return true;
}

std::shared_ptr<const physical_page> mapping_table::page_at(std::byte* address) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_address_.find(address);
  return found == by_address_.end() ? nullptr : found->second.page();
}

page_mapping mapping_table::take(std::byte* address) {
  const std::lock_guard lock(mutex_);
  const auto found = by_address_.find(address);
  if (found == by_address_.end()) return {};
  page_mapping taken = std::move(found->second);
  by_address_.erase(found);
  return taken;
}

void mapping_table::put_back(page_mapping mapping) {
  const std::lock_guard lock(mutex_);
  std::byte* const at = mapping.address();
  by_address_.emplace(at, std::move(mapping));
}

void mapping_table::open_to(int device) {
  const std::lock_guard lock(mutex_);
  peers_.reserve(peers_.size() + 1);
  for (const auto& [address, mapping] : by_address_) mapping.open_to(device);
  peers_.push_back(device);
}

void mapping_table::forget_devices() noexcept {
  const std::lock_guard lock(mutex_);
  peers_.clear();
}

}  // namespace cenote::inline v1
