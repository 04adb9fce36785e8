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
  heap_.settle();
  unfinished rest{keep_bytes, heap_.settle_unmarked()};
  // The legacy default stream is there at any time, and may be named.
  if (rest.left.done != nullptr) heap_.settle_own({}, legacy_default_id, rest.left.blocks);
  const std::size_t given_back = memory_.give_back(keep_bytes);
  const auto earlier = take_rest();  // this one asks for what that did
  if (!rest.left.blocks.empty() && memory_.held() > keep_bytes) keep_rest(std::move(rest));
  return given_back;
}

void trimmer::go_on(stream_ref stream, stream_id id) noexcept {
  try {
    if (id.is_capturing() || is_capture_underway(heap_.device())) return;
    const relaxed_capture_scope relaxed;
    auto rest = take_rest();
    if (!rest) return;
    auto& [keep_bytes, left] = *rest;
    if (left.done == nullptr) {  // a capture was in the way
      left = heap_.settle_unmarked();
    } else if (left.done->is_complete()) {
      heap_.make_ready(std::exchange(left, {}).blocks);
    } else if (!heap_.settle_own(stream, id, left.blocks)) {
      return keep_rest(*std::move(rest));
    }
    memory_.give_back(keep_bytes);
    if (!left.blocks.empty()) keep_rest(*std::move(rest));
  } catch (const std::exception& error) {
    report_once("what a trim left could not be given back: ", error.what());
  }
}

auto trimmer::take_rest() -> std::optional<unfinished> {
  const std::lock_guard lock(mutex_);
  is_unfinished_.store(false, std::memory_order_relaxed);
  return std::exchange(rest_, std::nullopt);
}

/// Unless there is a later one, which has all that this one has.
void trimmer::keep_rest(unfinished rest) {
  const std::lock_guard lock(mutex_);
  if (!rest_) rest_.emplace(std::move(rest));
  is_unfinished_.store(true, std::memory_order_relaxed);
}

}  // namespace cenote::inline v1::pool
