#include "cenote/driver/touched_chunks.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

#include "cenote/ground/bytes.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::size_t small_page_bytes = 4096;
constexpr std::size_t most_threads = 15;
constexpr std::size_t least_pieces_of_a_chunk = 8;
constexpr std::size_t most_pieces_of_a_chunk = 32;

void touch(std::byte* piece) noexcept {
  for (std::size_t at = 0; at < touched_chunks::piece_bytes; at += small_page_bytes) {
    *static_cast<volatile std::byte*>(piece + at) = std::byte{0};
  }
}

}  // namespace

auto touched_chunks::map(std::size_t bytes) noexcept -> chunk {
  constexpr int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const mapped = mmap(nullptr, bytes + huge_page_bytes, PROT_READ | PROT_WRITE, how, -1, 0);
  if (mapped == MAP_FAILED) return {};
  auto* const first = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (huge_page_bytes - reinterpret_cast<std::uintptr_t>(first) % huge_page_bytes) % huge_page_bytes;
  if (before != 0) munmap(first, before);
  munmap(first + before + bytes, huge_page_bytes - before);
  madvise(first + before, bytes, MADV_HUGEPAGE);  // a host that has none does without
  madvise(first + before, bytes, MADV_DONTFORK);  // a child's copy would take the pages that the device knows
  return {first + before, bytes};
}

void touched_chunks::unmap(chunk memory) noexcept { munmap(memory.at, memory.bytes); }

touched_chunks::touched_chunks(std::size_t bytes) {
  const std::size_t pieces = align_up(bytes, piece_bytes) / piece_bytes;
  const std::size_t others = std::max(2U, std::thread::hardware_concurrency()) - 1;  // the caller pins on one
  const std::size_t threads = std::min({pieces, most_threads, others});
  if (pieces == 0) return;
  threads_.reserve(threads);
  all_ = map(pieces * piece_bytes);
  if (all_.at == nullptr) return;
  pieces_ = pieces;
  try {
    is_touched_.resize(pieces);
    while (threads_.size() < threads) threads_.emplace_back([this] { touch_ahead(); });
  } catch (const std::exception&) {  // the threads that there are touch all; without one, nobody does
  }
}

touched_chunks::~touched_chunks() {
  {
    const std::lock_guard lock(mutex_);
    pieces_ = begun_;
  }
  threads_.clear();
  const std::size_t taken = taken_ * piece_bytes;
  if (taken != all_.bytes) unmap({all_.at + taken, all_.bytes - taken});
}

void touched_chunks::touch_ahead() {
  std::unique_lock lock(mutex_);
  while (begun_ != pieces_) {
    const std::size_t piece = begun_++;
    lock.unlock();
    touch(all_.at + piece * piece_bytes);
    lock.lock();
    is_touched_[piece] = true;
    was_touched_.notify_one();
  }
}

auto touched_chunks::take() -> chunk {
  std::unique_lock lock(mutex_);
  const std::size_t first = taken_;
  const std::size_t left = pieces_ - first;
  if (left == 0) return map();
  const std::size_t count = std::min(left, std::clamp(left / 2, least_pieces_of_a_chunk, most_pieces_of_a_chunk));
  for (; taken_ != first + count; ++taken_) {
    if (!threads_.empty()) was_touched_.wait(lock, [this] { return is_touched_[taken_]; });
  }
  return {all_.at + first * piece_bytes, count * piece_bytes};
}

}  // namespace cenote::inline v1
