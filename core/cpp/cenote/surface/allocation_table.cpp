#include "cenote/surface/allocation_table.hpp"

#include <stdexcept>
#include <utility>

#include "cenote/ground/check.hpp"
#include "cenote/ground/hot.hpp"

namespace cenote::inline v1 {

void allocation_table::move_into(std::vector<allocation>& room) noexcept {
  if (room.size() <= places_.size()) return;
  places_.swap(room);
  mask_ = places_.size() - 1;
  size_ = 0;
  for (allocation& each : room) {
    if (each.pointer != nullptr) insert(each);
  }
}

CENOTE_HOT allocation* allocation_table::find(const void* pointer) noexcept {
  if (size_ == 0) return nullptr;
  allocation* const places = places_.data();
  for (std::size_t at = home_of(pointer); places[at].pointer != nullptr; at = (at + 1) & mask_) {
    if (places[at].pointer == pointer) return &places[at];
  }
  return nullptr;
}

CENOTE_HOT void allocation_table::insert(allocation& made) noexcept {
  allocation* const places = places_.data();
  std::size_t at = home_of(made.pointer);
  while (places[at].pointer != nullptr && places[at].pointer != made.pointer) at = (at + 1) & mask_;
  if (places[at].pointer == nullptr) [[likely]] {
    ++size_;
    places[at] = std::move(made);
    made.pointer = nullptr;
  } else {
    std::swap(places[at], made);
  }
  if constexpr (check_level >= 2) check();
}

CENOTE_HOT allocation allocation_table::remove(allocation& found) noexcept {
  allocation* const places = places_.data();
  allocation removed = std::move(found);
  --size_;
  std::size_t gap = static_cast<std::size_t>(&found - places);
  for (std::size_t at = (gap + 1) & mask_; places[at].pointer != nullptr; at = (at + 1) & mask_) {
    const std::size_t from_home = (at - home_of(places[at].pointer)) & mask_;
    if (from_home < ((at - gap) & mask_)) continue;  // it may not lie before its hash
    places[gap] = std::move(places[at]);
    gap = at;
  }
  places[gap].pointer = nullptr;  // what has been moved from holds no resource
  if constexpr (check_level >= 2) check();
  return removed;
}

void allocation_table::check() const {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].pointer == nullptr) {
      if (!places_[i].resource.is_empty()) throw std::logic_error("allocation_table I3: a free place holds a resource");
      continue;
    }
    ++taken;
    for (std::size_t at = home_of(places_[i].pointer); at != i; at = (at + 1) & mask_) {
      if (places_[at].pointer == nullptr || places_[at].pointer == places_[i].pointer) {
        throw std::logic_error("allocation_table I2: an address cannot be found, or is entered twice");
      }
    }
  }
  if (taken != size_ || 4 * size_ > 3 * places_.size()) {
    throw std::logic_error("allocation_table I1: too many places are taken, or their number is wrong");
  }
}

}  // namespace cenote::inline v1
