// What goes from the owner of a shared block to a process that opens it: one block_answer; then for each page its bytes
// with its descriptor, or, of a block of a driver's pool, what names it there with the pool's descriptor.
#pragma once

#include <cstdint>

#include "cenote/driver/event.hpp"
#include "cenote/driver/exported_pool_block.hpp"

namespace cenote::inline v1 {

enum class block_status : std::uint64_t { open, freed, failed };

struct block_answer {
  block_status status;
  std::uint64_t pages;   ///< 0: a block of a driver's pool
  std::uint64_t bytes;   ///< of all pages
  std::uint64_t offset;  ///< of the block in them
  event_handle written;  ///< after which the contents are there
};

using page_bytes_message = std::uint64_t;
using pool_block_message = exported_pointer;

}  // namespace cenote::inline v1
