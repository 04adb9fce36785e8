// Pausing a program's memory: pools over virtual memory give all their pages back, and keep every address.
//
//     pause("cache")  ──▶  the device is free for others  ──▶  resume("cache")      pointers and graphs stay valid
//
//   1. What is paused is a resource (the pool in its stack), a region on all of its devices, several of these, or all
//      regions and the current resources of all devices.
//   2. Several pools are paused, or resumed, one after the other, under the growth locks of all: no other thread finds
//      some of them paused. If one fails, those before it are put back, with their contents: no memory is released
//      before the pages of all are unmapped.
//   3. `keep` says where contents go: "host", "peer:N", "file:FOLDER", "nothing", "fill:BYTE".
//
// Threads: any. Errors, with nothing changed: those of pool_memory_resource; std::invalid_argument where there is no
// such region, or no pool over virtual memory in the stack, or what stands on it keeps memory of it (another pool, an
// arena, fixed sizes, bins); std::runtime_error where there is nothing to pause, or to resume.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// Each returns the bytes that the device got, or gave.
CENOTE_EXPORT std::size_t pause(const std::shared_ptr<memory_resource>& resource, const std::string& keep = "host");
CENOTE_EXPORT std::size_t resume(const std::shared_ptr<memory_resource>& resource);

CENOTE_EXPORT std::size_t pause_region(const std::string& name, const std::string& keep = "host");
CENOTE_EXPORT std::size_t resume_region(const std::string& name);

struct region_pause {
  std::string region;
  std::string keep;
};

/// Pauses several regions as one, each with a `keep` of its own. Those that are paused already
/// stay as they are; of a region that is named twice the first `keep` holds.
CENOTE_EXPORT std::size_t pause_regions(const std::vector<region_pause>& regions);

/// Regions that are paused already, or were never paused, stay as they are. So do current resources that cannot be
/// paused.
CENOTE_EXPORT std::size_t pause_all(const std::string& keep = "host");
CENOTE_EXPORT std::size_t resume_all();

/// Whether the pool in the stack is paused; false where there is no such pool.
CENOTE_EXPORT bool is_paused(const std::shared_ptr<memory_resource>& resource);

/// The bytes that the pool in the stack needs to be resumed; 0 where it is not paused.
CENOTE_EXPORT std::size_t paused_bytes(const std::shared_ptr<memory_resource>& resource);

/// Copies what the paused pool in the stack held at an address to memory of the host, as pool_memory_resource does;
/// false also where there is no such pool.
CENOTE_EXPORT bool read_paused(const std::shared_ptr<memory_resource>& resource, void* to, const void* from,
                               std::size_t bytes);

/// Pinned memory of the host that pauses keep for later ones: at most so many bytes from now on. At first it is half of
/// the host's memory. Returns how many bytes were given back.
CENOTE_EXPORT std::size_t keep_pinned_at_most(std::size_t bytes);

/// The bytes that are kept and not in use.
CENOTE_EXPORT std::size_t kept_pinned_bytes();

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
