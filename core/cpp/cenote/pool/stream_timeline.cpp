#include "cenote/pool/stream_timeline.hpp"

#include <algorithm>

namespace cenote::inline v1::pool {
namespace {

// One event record costs 180 to 400 ns (driver 580, H100): shared by 32 frees it is cheap. Few but large blocks are
// marked sooner, so that of the heap one stream keeps no more than a small part to itself.
constexpr std::size_t frees_worth_a_mark = 32;
constexpr std::size_t shares_of_the_pool = 32;

}  // namespace

void stream_timeline::count_free(std::size_t bytes) noexcept {
  ++unmarked_frees_;
  unmarked_bytes_ += bytes;
}

bool stream_timeline::is_worth_a_mark(std::size_t pool_bytes) const noexcept {
  return unmarked_frees_ >= frees_worth_a_mark || unmarked_bytes_ >= pool_bytes / shares_of_the_pool;
}

stamp stream_timeline::close_epoch() noexcept {
  unmarked_frees_ = 0;
  unmarked_bytes_ = 0;
  return open_epoch_++;
}

std::optional<mark> stream_timeline::place_mark(mark placed) noexcept {
  std::optional<mark> superseded;
  if (mark_count_ == max_marks) {
    if (placed.epoch < nth_mark(0).epoch) return placed;
    superseded = take_mark(nth_mark(0).epoch);
  }
  std::size_t at = mark_count_++;
  // Two threads that free on one stream may place their marks in the other order than they closed their epochs.
  for (; at != 0 && nth_mark(at - 1).epoch > placed.epoch; --at) nth_mark(at) = std::move(nth_mark(at - 1));
  nth_mark(at) = std::move(placed);
  return superseded;
}

const mark* stream_timeline::covering(stamp freed_at) const noexcept {
  const mark* earliest = nullptr;
  for (std::size_t i = mark_count_; i != 0 && nth_mark(i - 1).epoch >= freed_at; --i) earliest = &nth_mark(i - 1);
  return earliest;
}

std::optional<mark> stream_timeline::take_mark(stamp epoch) noexcept {
  if (mark_count_ == 0 || nth_mark(0).epoch > epoch) return std::nullopt;
  mark earliest = std::move(nth_mark(0));
  first_mark_ = (first_mark_ + 1) % max_marks;
  --mark_count_;
  return earliest;
}

std::vector<mark> stream_timeline::marks() const {
  std::vector<mark> all;
  all.reserve(mark_count_);
  for (std::size_t i = 0; i != mark_count_; ++i) all.push_back(nth_mark(i));
  return all;
}

stamp stream_timeline::known_of(stream_id other) const noexcept {
  for (const auto& [id, epoch] : known_) {
    if (id == other) return epoch;
  }
  return 0;
}

void stream_timeline::learn(stream_id other, stamp epoch) {
  for (auto& [id, known] : known_) {
    if (id == other) {
      known = std::max(known, epoch);
      return;
    }
  }
  known_.emplace_back(other, epoch);
}

}  // namespace cenote::inline v1::pool
