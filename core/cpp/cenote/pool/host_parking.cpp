#include "cenote/pool/host_parking.hpp"

#include <algorithm>
#include <utility>

#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1::pool {

/// Runs copy(chunk, place in it, bytes done before, bytes) for the part that lies in each chunk.
template <class Copy>
void host_parking::for_each_part(std::size_t offset, std::size_t bytes, Copy&& copy) {
  constexpr std::size_t whole = pinned_chunks::chunk_bytes;
  for (std::size_t done = 0; done != bytes;) {
    const std::size_t place = (offset + done) % whole;
    const std::size_t part = std::min(bytes - done, whole - place);
    copy((offset + done) / whole, place, done, part);
    done += part;
  }
}

void host_parking::make_room(std::size_t bytes) {
  const std::size_t kept = pinned_chunks::get().kept_bytes();
  const std::size_t fresh = bytes - std::min(bytes, kept);
  if (fresh > pinned_chunks::chunk_bytes)
    touched_.emplace(align_up(fresh, pinned_chunks::chunk_bytes) / pinned_chunks::chunk_bytes);
}

void host_parking::save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, bytes, [&](std::size_t index, std::size_t place, std::size_t done, std::size_t part) {
    if (index == chunks_.size()) {
      chunks_.reserve(index + 1);
      pinned_chunks::chunk fresh = pinned_chunks::get().take(device_, touched_ ? &*touched_ : nullptr);
      if (!fresh) throw out_of_memory("pinned memory of the host", pinned_chunks::chunk_bytes, {});
      chunks_.push_back(std::move(fresh));
    }
    copy_pages_async(chunks_[index].at() + place, from + done, part, stream, device_);
  });
}

void host_parking::load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, bytes, [&](std::size_t index, std::size_t place, std::size_t done, std::size_t part) {
    copy_pages_async(to + done, chunks_[index].at() + place, part, stream, device_);
  });
}

}  // namespace cenote::inline v1::pool
