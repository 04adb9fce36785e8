#include "cenote/driver/pinned_chunks.hpp"

#include <unistd.h>

#include <mutex>

#include "cenote/driver/memory.hpp"
#include "cenote/ground/immortal.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t shares_of_the_host = 2;

}  // namespace

pinned_chunks& pinned_chunks::get() {
  static immortal<pinned_chunks> the_one;
  return *the_one;
}

/// Half of the host's memory.
std::size_t pinned_chunks::default_bound() noexcept {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return 0;
  return static_cast<std::size_t>(pages) / shares_of_the_host * static_cast<std::size_t>(page_bytes);
}

auto pinned_chunks::take(int device) -> chunk {
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) {
      const pinned known = kept_.back();
      kept_.pop_back();
      return chunk(known);
    }
  }
  return chunk({static_cast<std::byte*>(pinned_allocate(device, chunk_bytes)), device});
}

pinned_chunks::chunk::~chunk() {
  if (memory_.at != nullptr) get().give(memory_);
}

void pinned_chunks::give(pinned returned) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    if ((kept_.size() + 1) * chunk_bytes <= bound_) return kept_.push_back(returned);
  } catch (const std::bad_alloc&) {  // of the host's memory: then it is not kept
  }
  pinned_free(returned.device, returned.at);
}

std::size_t pinned_chunks::keep_at_most(std::size_t bytes) {
  std::vector<pinned> surplus;
  {
    const std::lock_guard lock(mutex_);
    bound_ = bytes;
    const std::size_t most = bytes / chunk_bytes;
    if (kept_.size() > most) {
      surplus.assign(kept_.begin() + static_cast<std::ptrdiff_t>(most), kept_.end());
      kept_.resize(most);
    }
  }
  for (const pinned& each : surplus) pinned_free(each.device, each.at);
  return surplus.size() * chunk_bytes;
}

std::size_t pinned_chunks::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_.size() * chunk_bytes;
}

}  // namespace cenote::inline v1
