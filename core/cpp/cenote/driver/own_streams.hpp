// The streams that cenote made and that are alive, with their ids: so that nobody need ask the driver.
//
//     handle  →  place by a hash  →  { handle, id }     1024 places
//
// A stream that finds its place taken goes without.
//
// A handle that somebody passes belongs to a stream that is alive, and cenote's own leave the table before they are
// destroyed; so that a handle that is found here is that stream, and no other that was given the same value.
//
// Threads: any; nothing waits. Cost: two loads. 16 KiB of host memory.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

struct CUstream_st;

namespace cenote::inline v1::own_streams {

struct place {
  std::atomic<CUstream_st*> handle{nullptr};
  std::atomic<std::uint64_t> id{0};
};

constexpr unsigned place_bits = 10;
using table = std::array<place, std::size_t{1} << place_bits>;

extern table places;  // the one of the process

inline place& place_of(CUstream_st* handle) noexcept {
  constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing
  return places[(reinterpret_cast<std::uintptr_t>(handle) * golden_ratio) >> (64 - place_bits)];
}

void insert(CUstream_st* handle, std::uint64_t id) noexcept;
void remove(CUstream_st* handle) noexcept;

/// The id of a stream of our own; nothing for one that is not known.
inline std::optional<std::uint64_t> find(CUstream_st* handle) noexcept {
  const place& its = place_of(handle);
  if (its.handle.load(std::memory_order_acquire) != handle) return std::nullopt;
  return its.id.load(std::memory_order_relaxed);
}

}  // namespace cenote::inline v1::own_streams
