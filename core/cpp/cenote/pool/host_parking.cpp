#include "cenote/pool/host_parking.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1::pool {

void host_parking::make_room(std::size_t bytes) {
  const std::size_t kept = pinned_chunks::get().kept_bytes();
  const std::size_t fresh = bytes - std::min(bytes, kept);
  if (fresh > touched_chunks::piece_bytes) touched_.emplace(fresh);
}

void host_parking::pin_next() {
  pinned_chunks::chunk fresh = pinned_chunks::get().take(device_, touched_ ? &*touched_ : nullptr);
  if (!fresh) throw out_of_memory("pinned memory of the host", pinned_chunks::least_bytes, {});
  const std::size_t end = (places_.empty() ? 0 : places_.back().end) + fresh.bytes();
  places_.push_back({end, std::move(fresh)});
}

/// Runs copy(pinned memory, bytes done before, bytes) for the part that lies in each chunk. Pins what is not there yet.
template <class Copy>
void host_parking::for_each_part(std::size_t offset, std::size_t bytes, Copy&& copy) {
  auto at = std::ranges::upper_bound(places_, offset, {}, &place::end) - places_.begin();
  for (std::size_t done = 0; done != bytes; ++at) {
    if (at == std::ssize(places_)) pin_next();
    const place& here = places_[static_cast<std::size_t>(at)];
    const std::size_t left = here.end - (offset + done);
    const std::size_t part = std::min(bytes - done, left);
    copy(here.memory.at() + here.memory.bytes() - left, done, part);
    done += part;
  }
}

void host_parking::save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, bytes, [&](std::byte* pinned, std::size_t done, std::size_t part) {
    copy_pages_async(pinned, from + done, part, stream, device_);
  });
}

void host_parking::load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, bytes, [&](const std::byte* pinned, std::size_t done, std::size_t part) {
    copy_pages_async(to + done, pinned, part, stream, device_);
  });
}

}  // namespace cenote::inline v1::pool
