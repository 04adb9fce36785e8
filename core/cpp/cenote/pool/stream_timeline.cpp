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

std::optional<mark> stream_timeline::place_mark(mark placed) {
  // Two threads that free on one stream may place their marks in the other order than they closed their epochs.
  const auto position = std::upper_bound(marks_.begin(), marks_.end(), placed.epoch,
                                         [](stamp epoch, const mark& m) { return epoch < m.epoch; });
  marks_.insert(position, std::move(placed));
  return marks_.size() <= max_marks ? std::nullopt : take_mark(marks_.front().epoch);
}

const mark* stream_timeline::covering(stamp freed_at) const noexcept {
  const auto found = std::lower_bound(marks_.begin(), marks_.end(), freed_at,
                                      [](const mark& m, stamp wanted) { return m.epoch < wanted; });
  return found == marks_.end() ? nullptr : &*found;
}

std::optional<mark> stream_timeline::take_mark(stamp epoch) noexcept {
  if (marks_.empty() || marks_.front().epoch > epoch) return std::nullopt;
  mark earliest = std::move(marks_.front());
  marks_.pop_front();
  return earliest;
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
