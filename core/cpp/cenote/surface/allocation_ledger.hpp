// Every allocation made on behalf of a client: which resource made it, for how many bytes, at which
// alignment, on which stream.
//
// A plugin's free function is told a pointer and little else, and the current resource may have been replaced since the
// pointer was made. The ledger remembers, so that a block is always freed to the resource that made it; and since each
// entry keeps its resource alive, a replaced resource lives until its last block is freed.
//
// How a block is freed
//   * on the stream that it was allocated on, and never used on another: in the order of that stream;
//   * otherwise after all work of the device (reclaimer): correct whatever streams used it, alive or not; where one of
//     them is another device's, after all work of every device that is in use.
//
// A caller may hold a lock that others wait for, such as an interpreter's, and pass the functions that release it and
// take it back. What can be had at once (memory_resource::allocate_at_once) is then done under it, and all else without
// it.
//
// Threads: all functions from any thread. Entries lie in shards by address, each with a lock of its own that is held
// only for the look-up: never during a driver call or a resource's, nor while memory is allocated.
// A client that frees its blocks itself, to the resource that it has them from, tells the ledger of each: so the ledger
// knows all that the clients hold. What the ledger writes down, the flight recorder does too.
//
// Cost: warm, two short locks for an allocation, the device's and the shard's, and two for its free; besides the
// client's counters and what the resource does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/surface/client.hpp"

namespace cenote::inline v1 {

/// A lock that the caller holds and others wait for; none if default-constructed.
struct caller_lock {
  void* (*release)() = nullptr;
  void (*acquire)(void* released) = nullptr;  ///< is passed what `release` returned
  explicit operator bool() const noexcept { return release != nullptr; }
};

/// Allocates from the current resource of `device`. Throws as memory_resource::allocate does; null for 0 bytes.
CENOTE_EXPORT void* client_allocate(client_index client, int device, std::size_t bytes, stream_ref stream,
                                    caller_lock held = {}, std::size_t alignment = default_alignment);

/// Frees what client_allocate returned. `stream` is any live stream, on which the caller's uses of the block are queued
/// or finished. False for an unknown pointer, which is reported and ignored.
CENOTE_EXPORT bool client_deallocate(void* pointer, stream_ref stream, caller_lock held = {}) noexcept;

/// The same pair without a stream, as memory_resource::allocate_sync and deallocate_sync.
void* client_allocate_sync(client_index client, int device, std::size_t bytes);
bool client_deallocate_sync(void* pointer) noexcept;

/// Writes down, and counts, a block that the client frees itself. Where host memory has no room for that, it is counted
/// alone.
CENOTE_EXPORT void client_holds(client_index client, int device, const void* pointer, std::size_t bytes,
                                stream_ref stream) noexcept;

/// The client is about to free what client_holds was told of.
CENOTE_EXPORT void client_lets_go(client_index client, int device, const void* pointer, std::size_t bytes) noexcept;

/// A block that is held now.
struct held_block {
  std::uintptr_t address;
  std::size_t bytes;
  std::uint64_t stream;  ///< the id of the one that it was allocated on
  client_index client;
  tag_index tag;
  int device;
};

/// All that the clients hold, of one device if one is given. Not all of one moment: others may allocate meanwhile.
CENOTE_EXPORT std::vector<held_block> held_blocks(std::optional<int> device = std::nullopt);

/// The block is used on `stream` too: when it is freed, it is not reused before the work queued there by then is done.
/// `stream` may be another device's; a default one is the block's device's and the current device's. An unknown pointer
/// is ignored, as PyTorch does.
CENOTE_EXPORT void client_record_stream(void* pointer, stream_ref stream);

/// The block may be used on any stream of its device, at any time until it is freed.
CENOTE_EXPORT void client_share(void* pointer) noexcept;

}  // namespace cenote::inline v1
