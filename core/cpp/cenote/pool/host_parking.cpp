#include "cenote/pool/host_parking.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/host_memory.hpp"

namespace cenote::inline v1::pool {
namespace {

/// Throws out_of_memory where the host has less left: who takes more is killed, rather than told.
void require_of_host(std::size_t bytes) {
  const auto left = available_host_memory();
  if (!left || bytes <= *left) return;
  shortage known;
  known.rounded = bytes;
  known.resource = "pinned memory of the host";
  known.limited_by = "what the system, or a control group of the process, has left; keep=\"file:FOLDER\" needs little";
  memory_state state;
  state.limit = left;
  throw out_of_memory(bytes, state, std::move(known));
}

}  // namespace

void host_parking::make_room(std::size_t bytes) {
  bytes_ = bytes;
  const std::size_t fresh = align_up(bytes - pinned_chunks::get().kept_bytes_for(bytes), pinned_chunks::least_bytes);
  if (fresh == 0) return;
  require_of_host(fresh);
  if (fresh > pinned_chunks::least_bytes) touched_.emplace(fresh);
}

std::size_t host_parking::end() const noexcept { return places_.empty() ? 0 : places_.back().end; }

void host_parking::pin_next() {
  const std::size_t left = bytes_ - end();
  pinned_chunks::chunk fresh = pinned_chunks::get().take(device_, left, touched_ ? &*touched_ : nullptr);
  if (!fresh) throw out_of_memory("pinned memory of the host", left, {});
  const std::size_t its_end = end() + fresh.bytes();
  places_.push_back({its_end, std::move(fresh)});
}

void host_parking::save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) {
  for (std::size_t done = 0; done != bytes;) {
    if (offset + done == end()) pin_next();
    const place& last = places_.back();
    const std::size_t left = last.end - (offset + done);
    const std::size_t part = std::min(bytes - done, left);
    copy_pages_async(last.memory.at() + last.memory.bytes() - left, from + done, part, stream, device_);
    done += part;
  }
}

/// Calls `copy(to, from, bytes)` for the part in each chunk.
template <class Copy>
void host_parking::for_each_part(std::size_t offset, std::byte* to, std::size_t bytes, Copy&& copy) const {
  auto here = std::ranges::upper_bound(places_, offset, {}, &place::end);
  for (std::size_t done = 0; done != bytes; ++here) {
    const std::size_t left = here->end - (offset + done);
    const std::size_t part = std::min(bytes - done, left);
    copy(to + done, here->memory.at() + here->memory.bytes() - left, part);
    done += part;
  }
}

bool host_parking::read(std::size_t offset, std::byte* to, std::size_t bytes) {
  for_each_part(offset, to, bytes,
                [](std::byte* at, const std::byte* from, std::size_t part) { std::memcpy(at, from, part); });
  return true;
}

void host_parking::load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, to, bytes, [&](std::byte* at, const std::byte* from, std::size_t part) {
    copy_pages_async(at, from, part, stream, device_);
  });
}

}  // namespace cenote::inline v1::pool
