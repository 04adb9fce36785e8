#include "cenote/resources/offered_blocks.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cenote {

void offered_blocks::add(offer made) noexcept {
  bytes_ += made.bytes;
  offers_.push_back(std::move(made));
}

std::optional<offered_blocks::offer> offered_blocks::take_at(std::vector<offer>::iterator place) noexcept {
  std::optional<offer> taken = std::move(*place);
  offers_.erase(place);
  bytes_ -= taken->bytes;
  return taken;
}

std::optional<offered_blocks::offer> offered_blocks::take_own(stream_id stream, std::size_t bytes) noexcept {
  for (auto place = offers_.end(); place != offers_.begin();) {
    --place;
    if (place->lender == stream && place->bytes == bytes) return take_at(place);
  }
  return std::nullopt;
}

std::optional<offered_blocks::offer> offered_blocks::take(std::size_t bytes) noexcept {
  const auto fits = [bytes](const offer& each) { return each.bytes == bytes; };
  const auto place = std::find_if(offers_.begin(), offers_.end(), fits);
  return place == offers_.end() ? std::nullopt : take_at(place);
}

std::optional<offered_blocks::offer> offered_blocks::take_oldest() noexcept {
  return offers_.empty() ? std::nullopt : take_at(offers_.begin());
}

void offered_blocks::check(const block_heap& heap) const {
  std::size_t sum = 0;
  for (const offer& each : offers_) {
    const block& b = heap[each.block];
    if (b.is_free || !b.is_cached || b.is_kept || b.bytes() != each.bytes) {
      throw std::logic_error("offered_blocks I1: a block is on offer that is not nobody's");
    }
    sum += each.bytes;
  }
  if (offers_.size() > most) throw std::logic_error("offered_blocks I2: too many blocks are on offer");
  if (sum != bytes_) throw std::logic_error("offered_blocks I3: the sum of bytes is wrong");
}

}  // namespace cenote
