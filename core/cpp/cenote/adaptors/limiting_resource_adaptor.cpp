#include "cenote/adaptors/limiting_resource_adaptor.hpp"

#include <algorithm>
#include <stdexcept>

#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {
namespace {

/// Nobody has as much memory as the largest quota.
std::int64_t as_quota(std::size_t bytes) noexcept {
  return static_cast<std::int64_t>(std::min(bytes, static_cast<std::size_t>(leased_quota::largest)));
}

}  // namespace

limiting_resource_adaptor::limiting_resource_adaptor(std::shared_ptr<memory_resource> upstream,
                                                     std::size_t allocation_limit, std::size_t alignment)
    : resource_adaptor(std::move(upstream), "limiting"),
      limit_(allocation_limit),
      alignment_(alignment),
      quota_(leased_quota::limit::fixed, as_quota(allocation_limit)) {
  if (!is_power_of_two(alignment)) {
    throw std::invalid_argument("the limiting adaptor's alignment must be a power of two, not " +
                                std::to_string(alignment));
  }
}

std::string limiting_resource_adaptor::specification() const {
  return spell_specification(
      kind(), {"limit=" + spell_bytes(limit_),
               alignment_ == default_alignment ? std::string{} : "alignment=" + spell_bytes(alignment_)});
}

memory_state limiting_resource_adaptor::state() const {
  memory_state figures = next().state();
  const std::size_t in_use = allocated_bytes();
  figures.in_use = in_use;
  figures.limit = limit_;
  if (figures.largest_free)
    figures.largest_free = std::min(*figures.largest_free, align_down(limit_ - in_use, alignment_));
  return figures;
}

std::size_t limiting_resource_adaptor::allocated_bytes() const noexcept {
  const std::int64_t taken = quota_.taken();
  // Frees of wrong sizes may make it negative; while others allocate it may count one that is about to be refused.
  return std::min(static_cast<std::size_t>(std::max<std::int64_t>(taken, 0)), limit_);
}

inline bool limiting_resource_adaptor::try_reserve(std::size_t counted) noexcept {
  return counted <= limit_ && quota_.try_take(as_quota(counted));
}

/// A size that no block here can have, as a free may come with any, releases nothing.
inline void limiting_resource_adaptor::release(std::size_t counted) noexcept {
  if (counted <= limit_) [[likely]]
    quota_.give(as_quota(counted));
}

void* limiting_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const std::size_t counted = align_up(bytes, alignment_);
  if (!try_reserve(counted)) return nullptr;
  void* pointer = nullptr;
  try {
    pointer = pass_on(stream, bytes, alignment);
  } catch (...) {
    release(counted);
    throw;
  }
  if (pointer == nullptr) release(counted);
  return pointer;
}

void limiting_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                              std::size_t alignment) {
  // After the upstream has the memory back: who may take the bytes from now on finds them there.
  pass_on(stream, pointer, bytes, alignment);
  release(align_up(free_correction::of(pointer).value_or(bytes), alignment_));
}

void* limiting_resource_adaptor::do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const std::size_t counted = align_up(bytes, alignment_);
  if (!try_reserve(counted)) return nullptr;
  void* const pointer = next().allocate_at_once(stream, bytes, alignment);
  if (pointer == nullptr) release(counted);
  return pointer;
}

bool limiting_resource_adaptor::do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes,
                                                      std::size_t alignment) {
  if (!next().deallocate_at_once(stream, pointer, bytes, alignment)) return false;
  release(align_up(free_correction::of(pointer).value_or(bytes), alignment_));
  return true;
}

}  // namespace cenote::inline v1
