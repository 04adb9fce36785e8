// The full allocator's figures and settings.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/ApproximateClock.h>

#include <algorithm>

#include "full_allocator.hpp"
#include "resource_state.hpp"

namespace cenote::torch {
namespace {

/// How often the core is asked for what it holds, so that the peak of it is known: at most once in so many ticks of the
/// processor's clock, some milliseconds.
constexpr std::uint64_t ticks_between_looks = 5'000'000;

}  // namespace

std::size_t full_allocator::look_at_reserved(c10::DeviceIndex device) {
  device_state& its = of(device);
  its.next_look.store(static_cast<std::uint64_t>(c10::getApproximateTime()) + ticks_between_looks);
  const pool_totals pools = pools_.totals(device);
  const device_figures counted = its.blocks.figures();
  const std::size_t active = static_cast<std::size_t>(counted.active_bytes[0].current);
  const std::size_t active_small = static_cast<std::size_t>(counted.active_bytes[1].current);
  const std::size_t shared = pools_.trim_shared(device, false);
  const std::size_t held = held_of(device) + pools_.foreign_bytes(device) + shared;
  const std::size_t in_pools = pools.bytes[0] + pools.bytes[1] + shared;
  const std::size_t live_in_pools = pools.live_bytes[0] + pools.live_bytes[1];
  // Other clients' bytes are counted in as well; where the resource does not know what it holds, it is what is in use.
  const std::size_t least = in_pools + (active > live_in_pools ? active - live_in_pools : 0);
  const std::size_t reserved = std::max(held, least);

  reserved_figures figures;
  const std::size_t small_outside = active_small > pools.live_bytes[0] ? active_small - pools.live_bytes[0] : 0;
  figures.small = std::min(reserved, pools.bytes[0] + small_outside);
  figures.large = reserved - figures.small;
  figures.segments_small = pools.segments[0];
  figures.segments_large = pools.segments[1];
  figures.split_blocks_small = pools.split_blocks[0];
  figures.split_blocks_large = pools.split_blocks[1];
  figures.split_bytes_small = pools.split_bytes[0];
  figures.split_bytes_large = pools.split_bytes[1];
  its.blocks.with_counters([&](device_counters& counters) { counters.set_reserved(figures); });
  its.reserved_when_looked.store(reserved, std::memory_order_relaxed);
  return reserved;
}

device_figures full_allocator::getDeviceStats(c10::DeviceIndex device) {
  if (of(device).is_used) look_at_reserved(device);  // another device is not touched by asking
  device_figures figures = of(device).blocks.figures();
  figures.max_split_size = -1;
  if (has_native()) add_figures(figures, native_->getDeviceStats(device));
  return figures;
}

void full_allocator::resetAccumulatedStats(c10::DeviceIndex device) {
  of(device).blocks.with_counters([](device_counters& counters) { counters.reset_accumulated(); });
  if (has_native()) native_->resetAccumulatedStats(device);
}

void full_allocator::resetPeakStats(c10::DeviceIndex device) {
  if (of(device).is_used) look_at_reserved(device);
  of(device).blocks.with_counters([](device_counters& counters) { counters.reset_peak(); });
  if (has_native()) native_->resetPeakStats(device);
}

void full_allocator::cacheInfo(c10::DeviceIndex device, std::size_t* largest) {
  const cenote_memory_state state = state_of(device);
  *largest = std::max(known(state.device_free, 0), known(state.largest_free, 0));
}

void* full_allocator::getBaseAllocation(void* pointer, std::size_t* bytes) {
  const bool is_ours = visit(pointer, [&](const live_block& block) {
    if (bytes != nullptr) *bytes = block.bytes;
  });
  return is_ours ? pointer : native_->getBaseAllocation(pointer, bytes);
}

void full_allocator::init(int device_count) {
  device_count_ = device_count;
  is_initialized_ = true;
  if (!is_on()) native_->init(device_count);
}

bool full_allocator::initialized() { return is_initialized_; }

double full_allocator::getMemoryFraction(c10::DeviceIndex device) { return of(device).fraction; }

void full_allocator::setMemoryFraction(double fraction, c10::DeviceIndex device) {
  TORCH_CHECK(0 <= fraction && fraction <= 1,
              "invalid fraction: " + std::to_string(fraction) + ". Please set within [0, 1].");
  const std::size_t total = known(state_of(device).device_total, 0);
  of(device).fraction = fraction;
  // A fraction of 0 allows nothing; a limit of 0 would be none.
  of(device).limit = fraction == 1 ? 0 : std::max<std::size_t>(1, static_cast<std::size_t>(fraction * total));
  if (has_native()) native_->setMemoryFraction(fraction, device);
}

#if CENOTE_TORCH_VERSION >= 21000
std::vector<c10::cuda::CUDACachingAllocator::StreamSegmentSize> full_allocator::getExpandableSegmentSizes(
    c10::DeviceIndex device) {
  if (has_native()) return native_->getExpandableSegmentSizes(device);
  return {};
}
#endif

/// Switched off, PyTorch's own allocator takes each block from the driver and counts none.
void full_allocator::enable(bool value) {
  if (!value) prepare_native();
  if (has_native()) native_->enable(value);
  is_enabled_ = value;
}

bool full_allocator::isEnabled() const { return is_enabled_; }
std::string full_allocator::name() { return is_on() ? "cenote" : native_->name(); }

void full_allocator::enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex accessed) {
  c10::cuda::CUDAGuard guard(device);
  const cudaError_t result = cudaDeviceEnablePeerAccess(accessed, 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
  } else {
    C10_CUDA_CHECK(result);
  }
}

cudaError_t full_allocator::memcpyAsync(void* target, int target_device, const void* source, int source_device,
                                        std::size_t bytes, cudaStream_t stream, bool has_peer_access) {
  if (has_peer_access || target_device == source_device) {
    return cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, stream);
  }
  return cudaMemcpyPeerAsync(target, target_device, source, source_device, bytes, stream);
}

}  // namespace cenote::torch
