#include "cenote/pool/chunk_source.hpp"

#include <algorithm>

#include "cenote/driver/cuda_stream.hpp"

namespace cenote::inline v1::pool {
namespace {

// Chunks are multiples of what the driver maps at once (2 MiB, driver 580, H100). A pool doubles while it is small;
// beyond a gigabyte a chunk's price, 85 µs, no longer matters and taking more than is needed does.
constexpr std::size_t granularity = 2 * MiB;
constexpr std::size_t largest_unasked = 1 * GiB;

}  // namespace

std::size_t chunk_source::held() const {
  const std::lock_guard lock(mutex_);
  return held_;
}

void chunk_source::set_step(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  step_ = bytes;
}

chunk chunk_source::take_exactly(std::size_t bytes) {
  void* const base = upstream_->allocate_sync(bytes);
  const std::lock_guard lock(mutex_);
  held_ += bytes;
  return {static_cast<std::byte*>(base), bytes};
}

std::optional<chunk> chunk_source::take(stream_ref stream, bool may_use_stream, std::size_t minimum,
                                        std::exception_ptr& refusal) {
  std::size_t wanted = preferred(minimum);
  while (const auto booked = book(wanted, minimum)) {
    void* base = nullptr;
    try {
      base = ask(stream, may_use_stream, *booked);
    } catch (const out_of_memory&) {  // a user's function may say so by throwing
      refusal = std::current_exception();
    } catch (...) {
      unbook(*booked);
      throw;
    }
    if (base != nullptr) return chunk{static_cast<std::byte*>(base), *booked};
    unbook(*booked);
    if (*booked == minimum) return std::nullopt;
    wanted = std::max(minimum, align_down(*booked / 2, block_granularity));
  }
  return std::nullopt;
}

void chunk_source::give(stream_ref stream, chunk unused) noexcept {
  upstream_->deallocate(stream, unused.base, unused.bytes);
  unbook(unused.bytes);
}

std::size_t chunk_source::preferred(std::size_t minimum) const {
  const std::lock_guard lock(mutex_);
  if (step_ && minimum <= *step_) return *step_;
  const std::size_t whole = align_up(std::max(minimum, std::clamp(held_, granularity, largest_unasked)), granularity);
  return std::min(whole, max_block_bytes);
}

/// Books up to `wanted` bytes, at least `minimum`, against the maximum; nothing if there is no room for them.
std::optional<std::size_t> chunk_source::book(std::size_t wanted, std::size_t minimum) {
  const std::lock_guard lock(mutex_);
  const std::size_t room = maximum_.value_or(max_allocation) - held_;
  if (minimum > room) return std::nullopt;
  const std::size_t booked = std::min(wanted, align_down(room, block_granularity));
  held_ += booked;
  return booked;
}

void chunk_source::unbook(std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  held_ -= bytes;
}

void* chunk_source::ask(stream_ref stream, bool may_use_stream, std::size_t bytes) {
  if (may_use_stream || !upstream_->is_stream_ordered()) return upstream_->try_allocate(stream, bytes);
  // On a captured stream a stream-ordered allocation would become a node of the graph.
  const int device = upstream_->device();
  const cuda_stream aside(device, cuda_stream::kind::non_blocking);
  void* const base = upstream_->try_allocate(aside.view(), bytes);
  try {
    synchronize(aside.view(), device);
  } catch (...) {
    upstream_->deallocate(aside.view(), base, bytes);
    throw;
  }
  return base;
}

}  // namespace cenote::inline v1::pool
