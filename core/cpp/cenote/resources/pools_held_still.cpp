#include "cenote/resources/pools_held_still.hpp"

#include <utility>

#include "cenote/pool/engine.hpp"
#include "cenote/pool/page_backing.hpp"

namespace cenote::inline v1 {

pools_held_still::pools_held_still(std::vector<std::shared_ptr<pool_memory_resource>> all) : all_(std::move(all)) {
  locks_.reserve(all_.size());
  for (const auto& each : all_) locks_.emplace_back(each->engine_->memory().growth(), std::defer_lock);
  for (std::size_t first = 0; first < locks_.size();) first = lock_all_from(first);
}

/// Returns where to begin the next time, at the one that another thread has, or the count of all once it has them.
std::size_t pools_held_still::lock_all_from(std::size_t first) {
  const std::size_t count = locks_.size();
  locks_[first].lock();
  for (std::size_t i = 1; i < count; ++i) {
    const std::size_t next = (first + i) % count;
    if (locks_[next].try_lock()) continue;
    for (auto& each : locks_) {
      if (each.owns_lock()) each.unlock();
    }
    return next;
  }
  return count;
}

std::vector<std::shared_ptr<pool_memory_resource>> pools_held_still::which(bool are_paused) const {
  std::vector<std::shared_ptr<pool_memory_resource>> found;
  for (const auto& each : all_) {
    if (each->is_paused() == are_paused) found.push_back(each);
  }
  return found;
}

std::size_t pools_held_still::hide(pool_memory_resource& one, const std::string& keep) const {
  return static_cast<pool::page_backing&>(one.engine_->memory()).hide(keep);
}

std::size_t pools_held_still::release(pool_memory_resource& one) const noexcept {
  return static_cast<pool::page_backing&>(one.engine_->memory()).release();
}

}  // namespace cenote::inline v1
