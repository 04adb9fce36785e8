#include "cenote/driver/touched_chunks.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace cenote::inline v1 {
namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::size_t small_page_bytes = 4096;
constexpr std::size_t most_threads = 8;
constexpr std::size_t most_ahead = 2 * most_threads;

/// Null where the host has no memory for it.
std::byte* map_and_touch() noexcept {
  std::byte* const chunk = touched_chunks::map();
  if (chunk == nullptr) return nullptr;
  for (std::size_t at = 0; at < touched_chunks::chunk_bytes; at += small_page_bytes) {
    *static_cast<volatile std::byte*>(chunk + at) = std::byte{0};
  }
  return chunk;
}

}  // namespace

/// At a multiple of a huge page.
std::byte* touched_chunks::map() noexcept {
  constexpr int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const mapped = mmap(nullptr, chunk_bytes + huge_page_bytes, PROT_READ | PROT_WRITE, how, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const first = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (huge_page_bytes - reinterpret_cast<std::uintptr_t>(first) % huge_page_bytes) % huge_page_bytes;
  if (before != 0) munmap(first, before);
  munmap(first + before + chunk_bytes, huge_page_bytes - before);
  madvise(first + before, chunk_bytes, MADV_HUGEPAGE);  // a host that has none does without
  madvise(first + before, chunk_bytes, MADV_DONTFORK);  // a child's copy would take the pages that the device knows
  return first + before;
}

void touched_chunks::unmap(std::byte* chunk) noexcept { munmap(chunk, chunk_bytes); }

touched_chunks::touched_chunks(std::size_t count) : not_begun_(count) {
  ready_.reserve(most_ahead);
  const std::size_t threads = std::min({count, most_threads, std::size_t{std::thread::hardware_concurrency()}});
  threads_.reserve(threads);
  try {
    while (threads_.size() < threads) threads_.emplace_back([this] { touch_ahead(); });
  } catch (const std::exception&) {  // those that there are touch all
  }
  if (threads_.empty()) not_begun_ = 0;  // nothing is touched ahead
}

touched_chunks::~touched_chunks() {
  {
    const std::lock_guard lock(mutex_);
    not_begun_ = 0;
  }
  room_ahead_.notify_all();
  threads_.clear();
  for (std::byte* const chunk : ready_) unmap(chunk);
}

void touched_chunks::touch_ahead() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_ahead_.wait(lock, [this] { return not_begun_ == 0 || ready_.size() + being_touched_ < most_ahead; });
    if (not_begun_ == 0) return;
    --not_begun_;
    ++being_touched_;
    lock.unlock();
    std::byte* const chunk = map_and_touch();
    lock.lock();
    --being_touched_;
    if (chunk != nullptr) {
      ready_.push_back(chunk);
    } else {
      not_begun_ = 0;  // the host has no memory left: whoever takes the next one hears of it
    }
    arrived_.notify_one();
  }
}

std::byte* touched_chunks::take() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return !ready_.empty() || not_begun_ + being_touched_ == 0; });
  if (ready_.empty()) {
    lock.unlock();
    return map();
  }
  std::byte* const chunk = ready_.back();
  ready_.pop_back();
  lock.unlock();
  room_ahead_.notify_one();
  return chunk;
}

}  // namespace cenote::inline v1
