#include "cenote/driver/own_streams.hpp"

#include <array>
#include <atomic>

namespace cenote::own_streams {
namespace {

struct place {
  std::atomic<CUstream_st*> handle{nullptr};
  std::atomic<std::uint64_t> id{0};
};

constexpr unsigned place_bits = 10;

constinit std::array<place, std::size_t{1} << place_bits> places{};

place& place_of(CUstream_st* handle) noexcept {
  constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing
  return places[(reinterpret_cast<std::uintptr_t>(handle) * golden_ratio) >> (64 - place_bits)];
}

/// In a place whose id is being written; CU_STREAM_LEGACY, which is no stream of ours.
CUstream_st* nobody_yet() noexcept { return reinterpret_cast<CUstream_st*>(1); }

}  // namespace

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

std::optional<std::uint64_t> find(CUstream_st* handle) noexcept {
  const place& its = place_of(handle);
  if (its.handle.load(std::memory_order_acquire) != handle) return std::nullopt;
  return its.id.load(std::memory_order_relaxed);
}

}  // namespace cenote::own_streams
