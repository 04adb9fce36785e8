// What goes from the owner of a shared block to a process that opens it: one block_answer, then for each page its bytes
// with its descriptor.
#pragma once

#include <cstdint>

#include "cenote/driver/event.hpp"

namespace cenote::inline v1 {

enum class block_status : std::uint64_t { open, freed, failed };

struct block_answer {
  block_status status;
  std::uint64_t pages;
  std::uint64_t bytes;   ///< of all pages
  std::uint64_t offset;  ///< of the block in them
  event_handle written;  ///< after which the contents are there
};

using page_bytes_message = std::uint64_t;

}  // namespace cenote::inline v1
