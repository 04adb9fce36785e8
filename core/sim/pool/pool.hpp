// A stream-ordered memory pool.
//
// 1. The pool takes segments from its place (pool_place.hpp) and hands out pieces of them, the smallest that fits.
// 2. A piece freed on a stream is parked: it may be handed out again at once on that stream. Once the free has run in
//    the stream's queue (settle), it is free for every stream, if CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC allows
//    that; but the program has not seen it yet: it does at the next synchronisation, and only then is it unused.
// 3. A segment that is unused goes back to the device when the pool is trimmed, and every synchronisation trims to the
//    release threshold. It goes as well when anything else on the device would find no memory otherwise.
// 4. An allocation for which there is no room, and for which the pool cannot grow, is given pieces that are still
//    parked, of one stream or several: its stream then waits for their frees, if
//    CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES allows that.
// 5. A destroyed pool gives nothing more out, and its segments go when its last block is gone.
//
//        segment:  [ live ][ parked, stream 7 ][ free, not seen yet ][ free ............ ]
//
// Memory of a pool on a card is charged to it. Managed and pinned memory lies on the host and is charged to no card; a
// managed pool's memory is preferred where the pool is (memory/placement.hpp).
//
// A card may use the memory of its own pools, and of managed ones. The memory of another card's pool, and of a pinned
// pool on the host, is open to it after cuMemPoolSetAccess only; cuCtxEnablePeerAccess does not open it
// (entry/peers.cpp).
//
// Invariants: I1 used_bytes <= reserved_bytes; I2 reserved_bytes is charged to the card, if any, and, where max_bytes
// is set, not above it; I3 live, parked and free pieces tile the segments; I4 what is not seen yet is free.
// Threads: guarded by driver_mutex().
// Cost: an allocation O(free pieces + log parked pieces), where memory is short O(segments and pieces of the device's
// pools); a free O(log pieces).
// Source: CUDA driver API, section Stream Ordered Memory Allocator; 2, 3 and 4 were measured on an H200, driver
// 580.159.04, with the device 58 and 80 % full, with work that was running and with work that was done. That driver
// refuses the pieces of several streams while their work is running, in the 75 ms that it takes to look for memory; no
// time passes here, so they are given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool_file.hpp"
#include "sim/pool/pool_place.hpp"

namespace cenote::sim {

struct simulated_device;
struct simulated_stream;

class simulated_pool : public std::enable_shared_from_this<simulated_pool> {
 public:
  /// Segments are multiples of this, what the driver maps at the least.
  static constexpr std::size_t segment_step = std::size_t{2} << 20;

  /// `device` is the card of the place; for a place that is on none, the one that the driver names for a pointer.
  /// max_bytes 0: as much as there is.
  simulated_pool(pool_place place, simulated_device& device, std::size_t max_bytes);

  /// Of memory that other processes know: this process's own, or, with `imported`, another's, of which this one gets
  /// just the blocks that it imports.
  simulated_pool(pool_place place, std::shared_ptr<pool_file> file, std::size_t max_bytes, bool imported);
  ~simulated_pool();

  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY).
  std::shared_ptr<memory_block> allocate(std::size_t bytes, simulated_stream& stream);

  /// The block is freed in the order of the stream, as work of it.
  void free_in_order(const std::shared_ptr<memory_block>& block, simulated_stream& stream);

  /// The block was freed, and nothing uses it any more.
  void free(const memory_block& block);

  /// Gives unused segments back, as long as `kept_bytes` stay reserved.
  void trim_to(std::size_t kept_bytes);

  /// The program has waited for something: it has seen every free that has run.
  void synchronised();

  /// All of it is gone, whatever there was in it, and the device has been told.
  void forget_memory();

  std::size_t reserved_bytes() const { return reserved_bytes_; }

  /// The bytes of unused segments.
  std::size_t unused_bytes() const;

  /// A descriptor of the pool for another process. Throws failure(CUDA_ERROR_INVALID_VALUE) for a pool that is for this
  /// process alone, or another's.
  int export_pool() const;

  /// The same of one block, and the block that another process has exported so.
  CUmemPoolPtrExportData export_block(const memory_block& block) const;
  std::shared_ptr<memory_block> import_block(const CUmemPoolPtrExportData& exported);

  /// The program has destroyed the pool.
  void close();

  CUresult get(CUmemPool_attribute attribute, void* value) const;
  CUresult set(CUmemPool_attribute attribute, const void* value);

  /// How a card may use memory of the pool. Its own card's way is not changed.
  CUmemAccess_flags access(const simulated_device& by) const;
  void set_access(const simulated_device& by, CUmemAccess_flags flags);

  bool is_open_to(const simulated_device& by) const { return access(by) != CU_MEM_ACCESS_FLAGS_PROT_NONE; }
  bool is_open_to_a_card() const { return managed() || place.on_device() || !access_.empty(); }

  block_kind kind_of_blocks() const;
  bool managed() const { return place.type == CU_MEM_ALLOCATION_TYPE_MANAGED; }

  /// Whether its memory is the card's.
  bool charged() const { return !managed() && place.on_device(); }

  const pool_place place;
  simulated_device& device;
  const creation made = made_now();
  std::uint64_t release_threshold = 0;

 private:
  struct parked_piece {
    std::size_t bytes;
    std::uint64_t stream_id;
    std::uint64_t ticket;
    queue_point freed;  ///< reached once the free has run
  };
  using parked_pieces = std::map<std::uintptr_t, parked_piece>;

  enum class free_seen { by_program, by_driver };

  void park(std::uintptr_t base, parked_piece parked);
  parked_piece unpark(std::uintptr_t base);
  void settle(std::uint64_t ticket);
  void hand_over(std::uintptr_t base, std::size_t bytes);

  std::uintptr_t find_room(std::size_t bytes, simulated_stream& stream);
  std::optional<std::uintptr_t> take_parked(std::size_t bytes, std::uint64_t stream_id);
  std::optional<std::uintptr_t> take_free(std::size_t bytes);
  std::optional<std::uintptr_t> take_behind_frees(std::size_t bytes, simulated_stream& stream);

  bool can_grow(std::size_t segment) const;
  void make_room_to_grow(std::size_t segment);
  bool releasable(std::uintptr_t base, std::size_t bytes, free_seen seen) const;
  std::size_t releasable_bytes(free_seen seen) const;
  void release_segments(std::size_t kept_bytes, free_seen seen);
  void grow(std::size_t bytes);
  void release(std::uintptr_t base, std::size_t bytes);
  void trim_if_closed();

  void end_import(const memory_block& block);

  const std::size_t max_bytes_;
  const std::shared_ptr<pool_file> file_{};  ///< null: other processes do not know of it
  const bool imported_ = false;
  std::map<std::uintptr_t, std::size_t> segments_;
  parked_pieces parked_;
  std::set<std::tuple<std::uint64_t, std::size_t, std::uintptr_t>> parked_by_stream_;  ///< stream id, bytes, base
  std::map<std::uint64_t, std::uintptr_t> parked_by_ticket_;
  std::vector<std::uint64_t> settled_;  ///< tickets of parked pieces whose frees have run
  range_set free_;
  range_set unseen_;
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

/// Releases unused segments of the device's pools where the device has no such room. The caller charges it then.
void make_room(simulated_device& device, std::size_t bytes);

/// Throws failure(CUDA_ERROR_INVALID_VALUE), and writes a violation down, for a dead handle.
std::shared_ptr<simulated_pool> pool_of(CUmemoryPool handle);

/// What a synchronisation does for every pool: memory above the release threshold goes back to its device.
void note_synchronisation();

handle_table<CUmemoryPool, simulated_pool>& live_pools();

}  // namespace cenote::sim
