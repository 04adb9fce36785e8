// Sub-allocations, announced to a tool that watches memory: NVTX's memory extension, which compute-sanitizer reads.
//
//     the driver's allocation  ┌──────────────── heap ────────────────┐
//                              │ region │        │ region │           │
//     blocks of a pool           in use    free    in use     free
//
// Without it the tool takes all of a pool's memory for one allocation, and sees no write beyond a block. With it, what
// is not in a region may not be touched.
//
//   1. The first block that lies in an allocation of the driver registers that as a heap.
//   2. Each block is a region from allocate to deallocate, with the bytes that were asked for.
//   3. When the driver gets its allocation back, the heap goes.
//
// The tool looks at what runs on the device now, and not in stream order; so deallocate waits for the stream first,
// unless it is being captured. If no tool takes the first heap, none is announced from then on.
//
// Threads: all functions from any thread. A mutex guards the tables; no driver call is made under it.
#pragma once

#include <cstddef>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1::nvtx {

/// A part of a larger allocation was handed out.
void region_begins(const void* block, std::size_t bytes, int device) noexcept;

/// `block` is about to be freed. Nothing happens if it was not announced.
void region_ends(const void* block, stream_ref stream, int device) noexcept;

/// The driver is about to get the allocation at `base` back.
void heap_ends(const void* base) noexcept;

}  // namespace cenote::inline v1::nvtx
