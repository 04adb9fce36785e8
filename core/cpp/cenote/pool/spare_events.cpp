#include "cenote/pool/spare_events.hpp"

#include <new>
#include <utility>

namespace cenote::inline v1::pool {

std::shared_ptr<event> spare_events::take() noexcept {
  if (spare_.empty()) return nullptr;
  std::shared_ptr<event> taken = std::move(spare_.back());
  spare_.pop_back();
  return taken;
}

void spare_events::keep(std::shared_ptr<event> unneeded) noexcept {
  if (unneeded.use_count() != 1) return;
  if (spare_.size() < most) return spare_.push_back(std::move(unneeded));
  try {
    surplus_.push_back(std::move(unneeded));
  } catch (const std::bad_alloc&) {  // of the host's memory: it is destroyed at once
  }
}

}  // namespace cenote::inline v1::pool
