// A stream-ordered memory pool.
//
// 1. The pool takes segments from its place (pool_place.hpp) and hands out pieces of them, first fit.
// 2. A piece freed on a stream is parked: it may be handed out again at once on that stream, and anywhere once the free
//    has run in the stream's queue (settle).
// 3. A segment that is all free goes back to the device when the pool is trimmed; every synchronisation trims to the
//    release threshold.
// 4. A destroyed pool gives nothing more out, and its segments go when its last block is gone.
//
//        segment:  [ live ][ parked, stream 7 ][ free ............ ]
//
// Memory of a pool on a card is charged to it. Managed and pinned memory lies on the host and is charged to no card; a
// managed pool's memory is preferred where the pool is (placement.hpp).
//
// A card may use the memory of its own pools, and of managed ones. The memory of another card's pool, and of a pinned
// pool on the host, is open to it after cuMemPoolSetAccess only; cuCtxEnablePeerAccess does not open it (peer.cpp).
//
// Invariants: I1 used_bytes <= reserved_bytes; I2 reserved_bytes is charged to the card, if any, and, where max_bytes
// is set, not above it; I3 live, parked and free pieces tile the segments. Threads: guarded by Driver::mutex. Cost:
// O(free and parked pieces) for an allocation. Source: CUDA driver API, section Stream Ordered Memory Allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "block.hpp"
#include "cuda_driver.hpp"
#include "pool_place.hpp"
#include "ranges.hpp"

namespace cenote::sim {

struct Device;

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  /// Segments are multiples of this, what the driver maps at the least.
  static constexpr std::size_t segment_step = std::size_t{2} << 20;

  /// `device` is the card of the place; for a place that is on none, the one that the driver names for a pointer.
  /// max_bytes 0: as much as there is.
  Pool(PoolPlace place, Device& device, std::size_t max_bytes);
  ~Pool();

  /// Throws Failure(CUDA_ERROR_OUT_OF_MEMORY).
  std::shared_ptr<Block> allocate(std::size_t bytes, std::uint64_t stream_id);

  /// The block was freed on a stream, and the free has not run yet. The ticket names it to settle.
  std::uint64_t park(const Block& block, std::uint64_t stream_id);
  void settle(std::uint64_t ticket);

  /// The block was freed, and nothing uses it any more.
  void free(const Block& block);

  /// Gives segments that are all free back, as long as `kept_bytes` stay reserved.
  void trim_to(std::size_t kept_bytes);

  /// The program has destroyed the pool.
  void close();

  CUresult get(CUmemPool_attribute attribute, void* value) const;
  CUresult set(CUmemPool_attribute attribute, const void* value);

  /// How a card may use memory of the pool. Its own card's way is not changed.
  CUmemAccess_flags access(const Device& by) const;
  void set_access(const Device& by, CUmemAccess_flags flags);

  bool is_open_to(const Device& by) const { return access(by) != CU_MEM_ACCESS_FLAGS_PROT_NONE; }
  bool is_open_to_a_card() const { return managed() || place.on_device() || !access_.empty(); }

  BlockKind block_kind() const;

  const PoolPlace place;
  Device& device;
  std::uint64_t release_threshold = 0;

 private:
  struct Parked {
    std::size_t bytes;
    std::uint64_t stream_id;
    std::uint64_t ticket;
  };

  std::optional<std::uintptr_t> take_parked(std::size_t bytes, std::uint64_t stream_id);
  bool managed() const { return place.type == CU_MEM_ALLOCATION_TYPE_MANAGED; }
  bool charged() const { return !managed() && place.on_device(); }
  void grow(std::size_t bytes);
  void release(std::uintptr_t base, std::size_t bytes);
  void trim_if_closed();

  const std::size_t max_bytes_;
  std::map<std::uintptr_t, std::size_t> segments_;
  std::map<std::uintptr_t, Parked> parked_;
  Ranges free_;
  std::map<int, CUmemAccess_flags> access_;  ///< of cards that were given any, by ordinal
  std::uint64_t last_ticket_ = 0;
  bool closed_ = false;

  std::uint64_t reserved_bytes_ = 0;
  std::uint64_t reserved_high_ = 0;
  std::uint64_t used_bytes_ = 0;
  std::uint64_t used_high_ = 0;
  int follow_event_dependencies_ = 1;
  int allow_opportunistic_ = 1;
  int allow_internal_dependencies_ = 1;
};

/// Throws Failure(CUDA_ERROR_INVALID_VALUE), and writes a violation down, for a dead handle.
std::shared_ptr<Pool> pool_of(CUmemoryPool handle);

}  // namespace cenote::sim
