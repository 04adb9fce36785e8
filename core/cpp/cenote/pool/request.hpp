// Who wants how much of a pool's memory, and on which terms: what every step of an allocation is told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1::pool {

struct request {
  stream_ref stream;
  stream_id id;
  std::size_t bytes;  // a multiple of 256
  std::size_t alignment;
  std::uint8_t unasked = 0;      // so many of the bytes are not asked for
  bool may_wait = true;          // false for a stream in a capture, or one that waiting would drag into one
  bool is_thorough = false;      // no block that fits is missed, however long the search
  bool is_planned = false;       // pages are scarce: a run is chosen for it, and no block is taken as it lies
  std::size_t held = 0;          // pages are scarce: what the pool holds
  bool is_scattered = false;     // an answer: nothing is in use, and what is held is not one block yet
  bool is_sparing = false;       // pages are scarce: a small block comes from a piece of one, also of another stream's
  std::exception_ptr refusal{};  // what the upstream threw when it had no memory, if it threw
};

}  // namespace cenote::inline v1::pool
