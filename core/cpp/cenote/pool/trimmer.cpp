#include "cenote/pool/trimmer.hpp"

#include <mutex>
#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/nvtx.hpp"
#include "cenote/ground/log.hpp"

namespace cenote::inline v1::pool {

std::size_t trimmer::trim(std::size_t keep_bytes, bool wait) {
  const nvtx::trim_range range(keep_bytes);
  const relaxed_capture_scope relaxed;
  heap_.end_captures();
  if (wait) static_cast<void>(heap_.settle_after_all_work());
  const auto earlier = rest();  // what it waited for may be done, though others have queued more by now
  if (earlier && earlier->left.done != nullptr && earlier->left.done->is_complete()) {
    heap_.make_ready(earlier->left.blocks);
  }
  heap_.settle();
  shared_heap::pending left = heap_.settle_unmarked();
  // The legacy default stream is there at any time, and may be named.
  if (left.done != nullptr) heap_.settle_own({}, legacy_default_id, left.blocks);
  const std::size_t given_back = memory_.give_back(keep_bytes);
  const auto replaced = take_rest();  // this one asks for what that did
  if (!left.blocks.empty() && memory_.held() > keep_bytes) keep_rest({keep_bytes, std::move(left)});
  return given_back;
}

void trimmer::go_on(stream_ref stream, stream_id id) noexcept {
  try {
    if (id.is_capturing() || is_capture_underway(heap_.device())) return;
    const relaxed_capture_scope relaxed;
    auto taken = take_rest();
    if (!taken) return;
    auto& [keep_bytes, left] = *taken;
    if (left.done == nullptr) {  // a capture was in the way
      left = heap_.settle_unmarked();
    } else if (left.done->is_complete()) {
      heap_.make_ready(std::exchange(left, {}).blocks);
    } else if (!heap_.settle_own(stream, id, left.blocks)) {
      return keep_rest(*std::move(taken));
    }
    memory_.give_back(keep_bytes);
    if (!left.blocks.empty()) keep_rest(*std::move(taken));
  } catch (const std::exception& error) {
    report_once("what a trim left could not be given back: ", error.what());
  }
}

auto trimmer::rest() -> std::optional<unfinished> {
  const std::lock_guard lock(mutex_);
  return rest_;
}

auto trimmer::take_rest() -> std::optional<unfinished> {
  const std::lock_guard lock(mutex_);
  is_unfinished_.store(false, std::memory_order_relaxed);
  return std::exchange(rest_, std::nullopt);
}

/// Unless there is a later one, which has all that this one has.
void trimmer::keep_rest(unfinished kept) {
  const std::lock_guard lock(mutex_);
  if (!rest_) rest_.emplace(std::move(kept));
  is_unfinished_.store(true, std::memory_order_relaxed);
}

}  // namespace cenote::inline v1::pool
