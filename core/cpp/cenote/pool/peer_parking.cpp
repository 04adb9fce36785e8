#include "cenote/pool/peer_parking.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/structures/page_map.hpp"

namespace cenote::inline v1::pool {
namespace {

/// A page of this size costs the driver two to five times what one of 32 MiB costs, and not eight times as much.
constexpr std::size_t largest_page_bytes = 256 * MiB;

int checked_peer(int device, int peer) {
  check_device(peer, "keeping paused memory: ");
  if (peer != device) return peer;
  throw std::invalid_argument("device " + std::to_string(device) + " cannot keep what it is to give back");
}

}  // namespace

peer_parking::peer_parking(int device, int peer)
    : device_(device),
      peer_(checked_peer(device, peer)),
      mappings_(peer, {.which = peer_devices::choice::named, .devices = {device}}) {}

void peer_parking::make_room(std::size_t bytes) {
  const std::size_t whole = align_up(bytes, page_map::slot_bytes);
  if (whole == 0) return;
  addresses_ = address_reservation::reserve(peer_, whole, page_map::max_page_bytes);
  if (addresses_ == nullptr) refuse(whole);
}

/// The pages before `end`, as far as they are not made.
void peer_parking::make_pages(std::size_t end) {
  while (made_bytes_ < end) {
    const std::size_t bytes = std::min(largest_page_bytes, addresses_->bytes() - made_bytes_);
    auto page = physical_page::create({.device = peer_}, bytes);
    if (page == nullptr || !mappings_.map(std::move(page), addresses_, addresses_->base() + made_bytes_, {})) {
      refuse(addresses_->bytes());
    }
    made_bytes_ += bytes;
  }
}

void peer_parking::refuse(std::size_t bytes) const {
  memory_state figures;
  figures.device_free = device_memory_info(peer_).free_bytes;
  throw out_of_memory("device " + std::to_string(peer_) + ", to keep paused memory", bytes, figures);
}

void peer_parking::save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) {
  make_pages(offset + bytes);
  copy_pages_async(addresses_->base() + offset, from, bytes, stream, device_);
}

bool peer_parking::read(std::size_t offset, std::byte* to, std::size_t bytes) {
  const cuda_stream stream(device_, cuda_stream::kind::non_blocking);
  copy_pages_async(to, addresses_->base() + offset, bytes, stream, device_);
  stream.synchronize();
  return true;
}

void peer_parking::load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) {
  copy_pages_async(to, addresses_->base() + offset, bytes, stream, device_);
}

}  // namespace cenote::inline v1::pool
