// Call sites: where in the program a block that is held was allocated, of every n-th allocation, on request.
//
// Threads: all functions from any thread. What describes a site is called under no lock, and may take an interpreter's.
// Cost: off, a load an allocation and a free. On, what describing takes for every n-th allocation of a thread, and a
// lock and a look-up for each free while a sampled block is held.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

/// Describes the place in the program that the calling thread is in, in one line; empty where it cannot.
using site_describer = std::string (*)();

/// Samples every so many allocations of each thread from now on; 0 stops it, and forgets what was sampled.
CENOTE_EXPORT void sample_call_sites(std::size_t every, site_describer describe);

namespace call_sites {

inline constinit std::atomic<std::size_t> sampled_every{0};   // 0: no allocation
inline constinit std::atomic<std::size_t> blocks_sampled{0};  // that are held

void note(const void* pointer) noexcept;
void forget(const void* pointer) noexcept;

}  // namespace call_sites

/// The ledger has written a block down, or forgets it.
inline void note_call_site(const void* pointer) noexcept {
  if (call_sites::sampled_every.load(std::memory_order_relaxed) != 0) [[unlikely]]
    call_sites::note(pointer);
}
inline void forget_call_site(const void* pointer) noexcept {
  if (call_sites::blocks_sampled.load(std::memory_order_relaxed) != 0) [[unlikely]]
    call_sites::forget(pointer);
}

struct sampled_block {
  std::uintptr_t address;
  std::string site;
};

/// The blocks held that were sampled.
CENOTE_EXPORT std::vector<sampled_block> sampled_blocks();

/// The sites of the blocks at these addresses, by the number of the site in `names`; no_site where none was sampled.
struct known_sites {
  static constexpr std::size_t no_site = std::size_t(-1);
  std::vector<std::string> names;
  std::vector<std::size_t> of_block;
};
known_sites sites_of(const std::vector<std::uintptr_t>& addresses);

}  // namespace cenote::inline v1
