// Clients: who holds how many bytes. Every plugin allocates under a name of its own.
//
// Counting does not depend on what resources are stacked up: it happens where a client enters.
//
// Threads: all functions from any thread; a client's counters (ground/process_counters.hpp) are read together.
// Cost: one short lock to count; another one for a tag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/surface/tag.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

using client_index = int;

struct client_usage {
  std::string name;
  std::uint64_t bytes;  ///< held now, as requested
  std::uint64_t peak_bytes;
  std::uint64_t allocations;  ///< live now
  std::uint64_t total_allocations;
};

/// The client of that name, made if there is none. std::length_error past 32 of them.
CENOTE_EXPORT client_index register_client(const std::string& name);

/// std::out_of_range unless register_client has given out that number.
CENOTE_EXPORT void check_client(client_index client);

/// Count bytes of a client, and of the tag that the allocation has.
CENOTE_EXPORT void client_allocated(client_index client, int device, std::size_t bytes, tag_index tag = 0) noexcept;
CENOTE_EXPORT void client_freed(client_index client, int device, std::size_t bytes, tag_index tag = 0) noexcept;

/// Every client, in order of registration.
CENOTE_EXPORT std::vector<client_usage> usage();

/// Every tag, in order of registration.
CENOTE_EXPORT std::vector<client_usage> usage_by_tag();

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
