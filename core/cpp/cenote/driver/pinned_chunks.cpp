#include "cenote/driver/pinned_chunks.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <system_error>
#include <thread>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t shares_of_the_host = 2;
constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::size_t small_page_bytes = 4096;
constexpr unsigned most_touching_threads = 8;

/// Addresses at a multiple of a huge page; null where there are none.
std::byte* map_chunk() noexcept {
  constexpr std::size_t bytes = pinned_chunks::chunk_bytes;
  constexpr int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const mapped = mmap(nullptr, bytes + huge_page_bytes, PROT_READ | PROT_WRITE, how, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const first = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (huge_page_bytes - reinterpret_cast<std::uintptr_t>(first) % huge_page_bytes) % huge_page_bytes;
  if (before != 0) munmap(first, before);
  munmap(first + before + bytes, huge_page_bytes - before);
  madvise(first + before, bytes, MADV_HUGEPAGE);  // a host that has none does without
  madvise(first + before, bytes, MADV_DONTFORK);  // a child's copy would take the pages that the device knows
  return first + before;
}

void touch(std::byte* from, std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += small_page_bytes) {
    *static_cast<volatile std::byte*>(from + at) = std::byte{0};
  }
}

/// Has the host find pages for all of it, by several threads: that is most of the work of pinning.
void touch_by_threads(std::byte* chunk) {
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, most_touching_threads);
  const std::size_t share = pinned_chunks::chunk_bytes / most_touching_threads;
  const auto touch_shares = [=](unsigned first) {
    for (unsigned i = first; i < most_touching_threads; i += count) touch(chunk + i * share, share);
  };
  std::vector<std::jthread> threads;
  threads.reserve(count);
  for (unsigned i = 1; i < count; ++i) {
    try {
      threads.emplace_back(touch_shares, i);
    } catch (const std::system_error&) {  // the driver touches what no thread does
      break;
    }
  }
  touch_shares(0);
}

void unmap_chunk(std::byte* chunk) noexcept { munmap(chunk, pinned_chunks::chunk_bytes); }

/// Null where memory ran out.
std::byte* pin_chunk(int device) {
  std::byte* const fresh = map_chunk();
  if (fresh == nullptr) return nullptr;
  try {
    touch_by_threads(fresh);
    const device_scope scope(device);
    const relaxed_capture_scope relaxed;
    const CUresult result = driver().cuMemHostRegister(fresh, pinned_chunks::chunk_bytes, CU_MEMHOSTREGISTER_PORTABLE);
    if (result == CUDA_SUCCESS) return fresh;
    if (result != CUDA_ERROR_OUT_OF_MEMORY) check_driver("cuMemHostRegister", result);
  } catch (...) {
    unmap_chunk(fresh);
    throw;
  }
  unmap_chunk(fresh);
  return nullptr;
}

void unpin_chunk(const pinned_chunks::pinned& chunk) noexcept {
  if (driver_is_gone()) return;
  try {
    const device_scope scope(chunk.device);
    const relaxed_capture_scope relaxed;
    const CUresult result = try_twice([&] { return driver().cuMemHostUnregister(chunk.at); });
    if (result == CUDA_SUCCESS) return unmap_chunk(chunk.at);
    report_driver_failure("cuMemHostUnregister", result, "pinned memory is leaked: ");
  } catch (const std::exception& error) {
    report_once("pinned memory is leaked: ", error.what());
  }
}

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
  unsigned times_forgotten = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) {
      const pinned known = kept_.back();
      kept_.pop_back();
      return chunk(known);
    }
    times_forgotten = times_forgotten_;
  }
  return chunk({pin_chunk(device), device, times_forgotten});
}

pinned_chunks::chunk::~chunk() {
  if (memory_.at != nullptr) get().give(memory_);
}

void pinned_chunks::give(pinned returned) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    if (returned.times_forgotten != times_forgotten_) return unmap_chunk(returned.at);
    if ((kept_.size() + 1) * chunk_bytes <= bound_) return kept_.push_back(returned);
  } catch (const std::bad_alloc&) {  // of the host's memory: then it is not kept
  }
  unpin_chunk(returned);
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
  for (const pinned& each : surplus) unpin_chunk(each);
  return surplus.size() * chunk_bytes;
}

std::size_t pinned_chunks::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_.size() * chunk_bytes;
}

void pinned_chunks::forget() noexcept {
  const std::lock_guard lock(mutex_);
  ++times_forgotten_;
  for (const pinned& each : kept_) unmap_chunk(each.at);
  kept_.clear();
}

}  // namespace cenote::inline v1
