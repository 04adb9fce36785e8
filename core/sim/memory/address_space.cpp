#include "sim/memory/address_space.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sim/ground/failure.hpp"
#include "sim/ground/ranges.hpp"

namespace cenote::sim {
namespace {

/// Below this, pages of a freed piece are kept: giving them back would cost more than it saves.
constexpr std::size_t discarded_from_bytes = std::size_t{64} << 10;

void map_fresh(std::uintptr_t address, std::size_t bytes, int protection) {
  void* const at = reinterpret_cast<void*>(address);
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  require(mmap(at, bytes, protection, flags, -1, 0) == at, CUDA_ERROR_OUT_OF_MEMORY);
}

void discard_pages(std::uintptr_t address, std::size_t bytes) {
  if (bytes >= discarded_from_bytes) {
    const auto first = round_up(address, page_bytes);
    const auto last = (address + bytes) & ~(page_bytes - 1);
    madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
}

}  // namespace

std::uintptr_t address_space::take(std::size_t bytes, std::size_t alignment) {
  const std::uintptr_t taken = take_untouched(bytes, alignment);
  std::memset(reinterpret_cast<void*>(taken), fresh_poison,
              poison_everything ? bytes : std::min(bytes, poisoned_bytes));
  return taken;
}

std::uintptr_t address_space::take_untouched(std::size_t bytes, std::size_t alignment) {
  auto taken = free_.take(bytes, alignment);
  if (!taken) {
    const std::size_t wanted = std::max(chunk_bytes, round_up(bytes, page_bytes) + alignment);
    void* const start =
        mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(start != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
    chunks_.push_back({reinterpret_cast<std::uintptr_t>(start), wanted});
    free_.insert(chunks_.back().start, wanted);
    taken = free_.take(bytes, alignment);
  }
  out_.insert(*taken, bytes);
  return *taken;
}

bool address_space::take_exactly(std::uintptr_t address, std::size_t bytes) {
  if (!free_.take_exactly(address, bytes)) {
    return false;
  }
  out_.insert(address, bytes);
  return true;
}

void address_space::poison_freed(std::uintptr_t address, std::size_t bytes) const {
  if (poison_everything) {
    std::memset(reinterpret_cast<void*>(address), freed_poison, bytes);
  }
}

void address_space::give_back(std::uintptr_t address, std::size_t bytes) {
  if (poison_everything) {
    poison_freed(address, bytes);
  } else {
    discard_pages(address, bytes);
  }
  give_back_untouched(address, bytes);
}

void address_space::give_back_untouched(std::uintptr_t address, std::size_t bytes) {
  out_.remove(address, bytes);
  free_.insert(address, bytes);
}

void address_space::retire_all() {
  range_set& machine = retired_by_machine_.emplace_back(std::move(out_));
  out_.clear();
  for (const auto& [start, bytes] : machine.all()) {
    discard_pages(start, bytes);
    retired_.insert(start, bytes);
    retired_bytes_ += bytes;
  }
  while (retired_bytes_ > most_retired_bytes) {
    for (const auto& [start, bytes] : retired_by_machine_.front().all()) {
      retired_.remove(start, bytes);
      free_.insert(start, bytes);
      retired_bytes_ -= bytes;
    }
    retired_by_machine_.pop_front();
  }
}

bool address_space::owns(std::uintptr_t address) const {
  return std::any_of(chunks_.begin(), chunks_.end(),
                     [&](const reserved_chunk& chunk) { return address - chunk.start < chunk.bytes; });
}

void seal(std::uintptr_t address, std::size_t bytes) { map_fresh(address, bytes, PROT_NONE); }

void unseal(std::uintptr_t address, std::size_t bytes) { map_fresh(address, bytes, PROT_READ | PROT_WRITE); }

address_space& addresses() {
  static address_space* const space = new address_space;
  return *space;
}

}  // namespace cenote::sim
