#include "cenote/pool/offered_blocks.hpp"

#include <algorithm>
#include <stdexcept>

namespace cenote::inline v1 {

offered_blocks::offered_blocks() {
  offers_.reserve(most);
  vacant_.reserve(most);
  for (offer& place : places_) vacant_.push_back(&place);
}

auto offered_blocks::make(block_index freed, std::size_t bytes, stream_id lender, stamp epoch) noexcept -> offer* {
  if (vacant_.empty()) return nullptr;
  offer& made = *vacant_.back();
  vacant_.pop_back();
  made.block = freed;
  made.bytes = bytes;
  made.lender = lender;
  made.freed.epoch = epoch;
  made.at.store(state::freed, std::memory_order_relaxed);
  offers_.push_back(&made);
  return &made;
}

auto offered_blocks::find_own(stream_id stream, std::size_t bytes) noexcept -> offer* {
  for (auto each = offers_.rbegin(); each != offers_.rend(); ++each) {
    offer& its = **each;
    if (its.bytes == bytes && its.lender == stream && its.is(state::offered)) return &its;
  }
  return nullptr;
}

auto offered_blocks::find(std::size_t bytes) noexcept -> offer* {
  for (offer* const each : offers_) {
    if (each->bytes == bytes && each->is(state::offered)) return each;
  }
  return nullptr;
}

void offered_blocks::remove(offer& removed) noexcept {
  offers_.erase(std::find(offers_.begin(), offers_.end(), &removed));
  vacant_.push_back(&removed);
}

void offered_blocks::lend(offer& lent, stream_id borrower) noexcept {
  lent.borrower = borrower;
  lent.at.store(state::taken, std::memory_order_relaxed);
}

void offered_blocks::give_back(offer& returned) noexcept {
  returned.at.store(state::offered, std::memory_order_relaxed);
}

auto offered_blocks::withdraw_oldest() noexcept -> std::optional<withdrawn> {
  for (offer* const each : offers_) {
    if (!each->is(state::offered)) continue;
    withdrawn taken_off{each->block, each->lender, std::move(each->freed)};
    remove(*each);
    return taken_off;
  }
  return std::nullopt;
}

auto offered_blocks::harvest() noexcept -> std::optional<lesson> {
  for (offer* const each : offers_) {
    if (!each->is(state::awaited)) continue;
    remove(*each);
    return lesson{each->borrower, each->lender, each->freed.epoch};
  }
  return std::nullopt;
}

bool offered_blocks::has_lender(stream_id stream) const noexcept {
  return std::any_of(offers_.begin(), offers_.end(), [&](const offer* each) { return each->lender == stream; });
}

std::size_t offered_blocks::size() const noexcept {
  const auto count =
      std::count_if(offers_.begin(), offers_.end(), [](const offer* each) { return each->is_nobodys(); });
  return static_cast<std::size_t>(count);
}

std::size_t offered_blocks::bytes() const noexcept {
  std::size_t sum = 0;
  for (const offer* const each : offers_) sum += each->is_nobodys() ? each->bytes : 0;
  return sum;
}

void offered_blocks::check(const block_heap& heap) const {
  for (const offer* const each : offers_) {
    if (!each->is_nobodys()) continue;
    const block& b = heap[each->block];
    if (b.is_free || !b.is_cached || b.is_kept || b.bytes() != each->bytes) {
      throw std::logic_error("offered_blocks I1: a block is on offer that is not nobody's");
    }
  }
  if (offers_.size() + vacant_.size() != most) throw std::logic_error("offered_blocks I2: a place is lost");
}

}  // namespace cenote::inline v1
