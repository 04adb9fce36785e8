#include "cenote/pool/backing.hpp"

#include "cenote/driver/capture.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/process_counters.hpp"

namespace cenote::inline v1::pool {

void backing::say_grown(std::size_t bytes) const noexcept { say(recorder::event::growth, "grew by", bytes); }

void backing::say_given_back(std::size_t bytes) const noexcept { say(recorder::event::trim, "gave back", bytes); }

void backing::count(std::size_t now) const noexcept {
  const std::size_t before = counted_.exchange(now, std::memory_order_relaxed);
  if (now != before) process_counters::get().devices[static_cast<std::size_t>(device())].changed(before, now);
}

void backing::say(recorder::event event, const char* what, std::size_t bytes) const noexcept {
  if (bytes == 0) return;
  recorder::note(event, device(), nullptr, bytes, {});
  count(held());
  if (!should_log(log_level::debug)) return;
  log(log_level::debug, "the pool on device ", device(), " ", what, " ", format_bytes(bytes), " and holds ",
      format_bytes(held()));
}

void backing::require_bounds(std::size_t held, std::size_t at_least) const {
  if (held < at_least || held > maximum().value_or(max_allocation)) {
    throw std::logic_error("backing I1: the pool's size is wrong");
  }
}

bool backing::is_known_to_be_without_captures() const noexcept {
  try {
    return !is_capture_underway(device());
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace cenote::inline v1::pool
