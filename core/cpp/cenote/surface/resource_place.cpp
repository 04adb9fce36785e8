#include "cenote/surface/resource_place.hpp"

#include "cenote/ground/hot.hpp"

namespace cenote::inline v1 {

CENOTE_HOT bool resource_hold::drop_held_unless_last() noexcept {
  const std::lock_guard lock(tenure_->place.lock_);
  if (tenure_->holds == 1) return false;
  --tenure_->holds;
  tenure_ = nullptr;
  return true;
}

CENOTE_HOT void resource_hold::drop_held() noexcept {
  resource_tenure* const left = std::exchange(tenure_, nullptr);
  {
    const std::lock_guard lock(left->place.lock_);
    if (--left->holds != 0) return;
  }
  delete left;
}

std::shared_ptr<memory_resource> resource_place::exchange(std::shared_ptr<memory_resource> resource) {
  resource_tenure* tenure = resource ? new resource_tenure{std::move(resource), *this} : nullptr;
  {
    const std::lock_guard lock(lock_);
    std::swap(tenure_, tenure);
  }
  const resource_hold replaced(tenure);
  return replaced.is_empty() ? nullptr : replaced.resource();
}

void resource_place::fill(std::shared_ptr<memory_resource> resource) {
  auto fresh = std::unique_ptr<resource_tenure>(new resource_tenure{std::move(resource), *this});
  const std::lock_guard lock(lock_);
  if (tenure_ == nullptr) tenure_ = fresh.release();
}

}  // namespace cenote::inline v1
