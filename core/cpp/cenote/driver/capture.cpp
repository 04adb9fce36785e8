#include "cenote/driver/capture.hpp"

#include <array>
#include <atomic>
#include <string_view>
#include <utility>

#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/stream_scope.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1 {
namespace {

std::array<std::atomic<int>, max_devices> captures_underway{};

constinit thread_local bool is_within_capture = false;

promise promise_of_environment() {
  const char* const said = environment_variable("CENOTE_CAPTURES");
  if (said == nullptr) return promise::not_given;
  if (std::string_view(said) == "announced") return promise::given;
  report_once("CENOTE_CAPTURES is \"", said, "\" and has no effect: the one word it knows is announced");
  return promise::not_given;
}

std::atomic<int>& count_of(int device) { return captures_underway.at(static_cast<std::size_t>(device)); }

/// Returns how many there were.
int count_one_less(int device) {
  std::atomic<int>& count = count_of(device);
  int underway = count.load(std::memory_order_acquire);
  do {
    if (underway == 0) break;  // it began before cenote was told of any
  } while (!count.compare_exchange_weak(underway, underway - 1, std::memory_order_acq_rel));
  return underway;
}

}  // namespace

void capture_begins(int device) { count_of(device).fetch_add(1, std::memory_order_acq_rel); }

bool capture_ended(int device) {
  if (count_one_less(device) > 1) return false;
  do_what_was_put_off(device);
  return true;
}

void capture_goes_on(int device) { count_one_less(device); }

std::optional<std::uint64_t> capture_of(stream_ref stream, int device) {
  if (stream.is_legacy_default()) return std::nullopt;  // the driver captures none
  const stream_scope scope(stream, device);
  CUstreamCaptureStatus status{};
  cuuint64_t value = 0;
  CENOTE_DRIVER_CALL(cuStreamGetCaptureInfo, stream.value(), &status, &value, nullptr, nullptr, nullptr);
  if (status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return std::nullopt;
  return value;
}

bool is_capture_announced(int device) { return count_of(device).load(std::memory_order_acquire) != 0; }

bool is_capture_underway(int device) {
  return is_capture_announced(device) || is_within_capture || !accepts_work({}, device);
}

bool synchronize_beside_captures(int device) {
  if (is_capture_underway(device)) return false;
  synchronize_device(device);
  return true;
}

bool has_ended_a_capture(const cuda_error& error) noexcept {
  return error.code() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

within_capture_scope::within_capture_scope(bool is_so) noexcept
    : outer_(std::exchange(is_within_capture, is_within_capture || is_so)) {}

within_capture_scope::~within_capture_scope() { is_within_capture = outer_; }

constinit std::atomic<promise> announced_captures{promise::unread};

void promise_announced_captures(bool promised) noexcept {
  announced_captures.store(promised ? promise::given : promise::not_given, std::memory_order_relaxed);
}

promise read_promise() {
  promise known = promise::unread;
  const promise read = promise_of_environment();
  announced_captures.compare_exchange_strong(known, read, std::memory_order_relaxed);
  return known == promise::unread ? read : known;  // somebody may have been faster
}

relaxed_capture_scope::relaxed_capture_scope() {
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  CENOTE_DRIVER_CALL(cuThreadExchangeStreamCaptureMode, &mode);
  previous_mode_ = mode;
}

relaxed_capture_scope::~relaxed_capture_scope() {
  auto mode = static_cast<CUstreamCaptureMode>(previous_mode_);
  report_driver_failure("cuThreadExchangeStreamCaptureMode", driver().cuThreadExchangeStreamCaptureMode(&mode));
}

}  // namespace cenote::inline v1
