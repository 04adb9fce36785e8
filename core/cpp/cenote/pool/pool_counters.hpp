// What a pool counts.
#pragma once

#include <cstdint>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// How often each path was taken since the pool was made.
struct pool_counters {
  std::uint64_t allocations = 0;
  std::uint64_t from_front_cache = 0;
  std::uint64_t from_own_stream = 0;
  std::uint64_t from_ready = 0;
  std::uint64_t from_other_stream = 0;
  std::uint64_t from_upstream = 0;
  std::uint64_t from_reclaim = 0;          ///< after blocks of several streams were joined
  std::uint64_t waits = 0;                 ///< device-side waits issued
  std::uint64_t events = 0;                ///< events recorded
  std::uint64_t upstream_allocations = 0;  ///< chunks, or pages, that were taken
  std::uint64_t upstream_frees = 0;        ///< and given back
  std::uint64_t pages_moved = 0;           ///< brought from one address to another, over virtual memory
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
