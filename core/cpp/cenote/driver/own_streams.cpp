#include "cenote/driver/own_streams.hpp"

namespace cenote::inline v1::own_streams {
namespace {

/// In a place whose id is being written: CU_STREAM_LEGACY, which is no stream of ours.
CUstream_st* nobody_yet() noexcept { return reinterpret_cast<CUstream_st*>(1); }

}  // namespace

constinit table places{};

void insert(CUstream_st* handle, std::uint64_t id) noexcept {
  place& its = place_of(handle);
  CUstream_st* vacant = nullptr;
  if (!its.handle.compare_exchange_strong(vacant, nobody_yet(), std::memory_order_acquire)) return;
  its.id.store(id, std::memory_order_relaxed);
  its.handle.store(handle, std::memory_order_release);
}

void remove(CUstream_st* handle) noexcept {
  place_of(handle).handle.compare_exchange_strong(handle, nullptr, std::memory_order_release);
}

}  // namespace cenote::inline v1::own_streams
