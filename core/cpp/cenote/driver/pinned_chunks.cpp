#include "cenote/driver/pinned_chunks.hpp"

#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t shares_of_the_host = 2;

/// Null where memory ran out.
touched_chunks::chunk pin_chunk(int device, touched_chunks* touched) {
  const touched_chunks::chunk fresh = touched != nullptr ? touched->take() : touched_chunks::map();
  if (fresh.at == nullptr) return {};
  try {
    const device_scope scope(device);
    const relaxed_capture_scope relaxed;
    const CUresult result = driver().cuMemHostRegister(fresh.at, fresh.bytes, CU_MEMHOSTREGISTER_PORTABLE);
    if (result == CUDA_SUCCESS) return fresh;
    if (result != CUDA_ERROR_OUT_OF_MEMORY) check_driver("cuMemHostRegister", result);
  } catch (...) {
    touched_chunks::unmap(fresh);
    throw;
  }
  touched_chunks::unmap(fresh);
  return {};
}

void unpin_chunk(const pinned_chunks::pinned& chunk) noexcept {
  if (driver_is_gone()) return;
  try {
    const device_scope scope(chunk.device);
    const relaxed_capture_scope relaxed;
    const CUresult result = try_twice([&] { return driver().cuMemHostUnregister(chunk.memory.at); });
    if (result == CUDA_SUCCESS) return touched_chunks::unmap(chunk.memory);
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

auto pinned_chunks::take(int device, std::size_t bytes, touched_chunks* touched) -> chunk {
  unsigned times_forgotten = 0;
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = take_kept_locked(bytes)) return chunk(*known);
    times_forgotten = times_forgotten_;
  }
  return chunk({pin_chunk(device, touched), device, times_forgotten});
}

/// Returns the place of the one that suits best, or their number where none does.
std::size_t pinned_chunks::choose(const std::vector<pinned>& among, std::size_t bytes) noexcept {
  const std::size_t most = 4 * align_up(std::max(bytes, std::size_t{1}), least_bytes);
  std::size_t best = among.size();
  for (std::size_t each = 0; each != among.size(); ++each) {
    const std::size_t size = among[each].memory.bytes;
    if (size > most) continue;
    const std::size_t best_size = best == among.size() ? 0 : among[best].memory.bytes;
    const bool is_better = best_size == 0 || (size >= bytes ? best_size < bytes || size < best_size : size > best_size);
    if (is_better) best = each;
  }
  return best;
}

auto pinned_chunks::take_kept_locked(std::size_t bytes) noexcept -> std::optional<pinned> {
  const std::size_t place = choose(kept_, bytes);
  if (place == kept_.size()) return std::nullopt;
  const pinned taken = kept_[place];
  kept_bytes_ -= taken.memory.bytes;
  kept_[place] = kept_.back();
  kept_.pop_back();
  return taken;
}

std::size_t pinned_chunks::kept_bytes_for(std::size_t bytes) const {
  std::vector<pinned> left;
  {
    const std::lock_guard lock(mutex_);
    left = kept_;
  }
  std::size_t served = 0;
  while (served < bytes) {
    const std::size_t place = choose(left, bytes - served);
    if (place == left.size()) return served;
    served += left[place].memory.bytes;
    left[place] = left.back();
    left.pop_back();
  }
  return bytes;
}

pinned_chunks::chunk::~chunk() {
  if (pinned_.memory.at != nullptr) get().give(pinned_);
}

void pinned_chunks::give(pinned returned) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    if (returned.times_forgotten != times_forgotten_) return touched_chunks::unmap(returned.memory);
    if (kept_bytes_ + returned.memory.bytes <= bound_) {
      kept_.push_back(returned);
      kept_bytes_ += returned.memory.bytes;
      return;
    }
  } catch (const std::bad_alloc&) {  // of the host's memory: then it is not kept
  }
  unpin_chunk(returned);
}

std::size_t pinned_chunks::keep_at_most(std::size_t bytes) {
  std::vector<pinned> surplus;
  std::size_t surplus_bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    bound_ = bytes;
    std::ranges::sort(kept_, {}, [](const pinned& each) { return each.memory.bytes; });
    std::size_t stay = kept_.size();
    for (; kept_bytes_ - surplus_bytes > bytes; --stay) surplus_bytes += kept_[stay - 1].memory.bytes;
    surplus.assign(kept_.begin() + static_cast<std::ptrdiff_t>(stay), kept_.end());
    kept_.resize(stay);
    kept_bytes_ -= surplus_bytes;
  }
  for (const pinned& each : surplus) unpin_chunk(each);
  return surplus_bytes;
}

std::size_t pinned_chunks::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

void pinned_chunks::forget() noexcept {
  const std::lock_guard lock(mutex_);
  ++times_forgotten_;
  for (const pinned& each : kept_) touched_chunks::unmap(each.memory);
  kept_.clear();
  kept_bytes_ = 0;
}

}  // namespace cenote::inline v1
