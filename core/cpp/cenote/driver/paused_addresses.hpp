// Addresses whose memory is away: those of pools that are paused.
//
// The driver takes an address that it does not know for one of the host's: a copy from there ends the process (H200,
// driver 580.159.04). So cenote's own copies look here first.
//
// Threads: any. Cost: one read while nothing is paused.
#pragma once

#include <cstddef>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

class paused_addresses {
 public:
  /// From now on, until the object ends. Throws std::bad_alloc.
  paused_addresses(const std::byte* base, std::size_t bytes);
  ~paused_addresses();
  paused_addresses(const paused_addresses&) = delete;
  paused_addresses& operator=(const paused_addresses&) = delete;

  /// Throws std::runtime_error where one of the two is among them; either may be null.
  static void refuse(const void* one, const void* other);

 private:
  const std::byte* const base_;
};

/// As copy_async and fill_async, for who pauses memory and brings it back.
void copy_pages_async(void* to, const void* from, std::size_t bytes, stream_ref stream, int device);
void fill_pages_async(void* to, unsigned char value, std::size_t bytes, stream_ref stream, int device);

}  // namespace cenote::inline v1
