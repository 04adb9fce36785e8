// The streams that cenote made and that are alive, with their ids: so that nobody need ask the driver.
//
//     handle  →  place by a hash  →  { handle, id }         1024 places; a stream that finds its place taken goes without
//
// A handle that somebody passes belongs to a stream that is alive, and cenote's own leave the table before they are
// destroyed; so that a handle that is found here is that stream, and no other that was given the same value.
//
// Threads: any; nothing waits. Cost: two loads. 16 KiB of host memory.
#pragma once

#include <cstdint>
#include <optional>

struct CUstream_st;

namespace cenote::own_streams {

void insert(CUstream_st* handle, std::uint64_t id) noexcept;
void remove(CUstream_st* handle) noexcept;

/// The id of a stream of our own; nothing for one that is not known.
std::optional<std::uint64_t> find(CUstream_st* handle) noexcept;

}  // namespace cenote::own_streams
