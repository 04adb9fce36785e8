// Shared blocks for callers who know memory by its address alone: the C ABI, and clients in Python.
//
// Threads: all functions from any thread.
#pragma once

#include <cstddef>
#include <string>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

/// Offers the bytes at an address to other processes (block_offer.hpp), or offers them again, and returns the handle.
/// The caller keeps the memory until unshare_address() has said that nobody has it.
CENOTE_EXPORT std::string share_address(int device, const void* address, std::size_t bytes, stream_ref stream);

/// Nobody can open the block any more. Whether another process has it open still: then the caller keeps it and asks
/// again. std::invalid_argument for what is not shared.
CENOTE_EXPORT bool unshare_address(const void* address);

struct opened_block {
  void* address;
  std::size_t bytes;
  int device;
};

/// As opened_memory_resource (opened_memory_resource.hpp), for work on `stream`.
opened_block open_block(const std::string& handle, stream_ref stream);

/// Waits for the work on `stream`, and lets the owner have the block. std::invalid_argument for what is not open.
void close_block(void* address, stream_ref stream);

}  // namespace cenote::inline v1
