#include "cenote/driver/stream_id.hpp"

#include <atomic>
#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/identified_scope.hpp"
#include "cenote/driver/own_streams.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/thread_number.hpp"

namespace cenote::inline v1 {
namespace {

CUstreamCaptureStatus capture_status(CUstream handle) {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  CENOTE_DRIVER_CALL(cuStreamIsCapturing, handle, &status);
  return status;
}

/// Of a stream that is not being captured.
stream_id known_or_asked_id(CUstream handle) {
  if (const auto own = own_streams::find(handle)) return {*own};
  unsigned long long value = 0;
  const CUresult result = driver().cuStreamGetId(handle, &value);
  if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) {
    throw cuda_error(
        "cuStreamGetId", result, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        "the stream is being captured, which nobody announced, although it is promised "
        "(CENOTE_CAPTURES=announced): call cenote_capture_begin and cenote_capture_end around the capture, "
        "or do not promise it");
  }
  check_driver("cuStreamGetId", result);
  return {value};
}

/// Tells apart what one handle means on several threads and devices: an odd number, which is no address of a stream.
CUstream per_thread_branch(int device) noexcept {
  const std::uint64_t which = this_thread_number() * max_devices + static_cast<std::uint64_t>(device);
  return reinterpret_cast<CUstream>(2 * which + 1);  // NOLINT: compared, never used
}

stream_id id_in_capture(CUstream handle, int device) {
  CUstreamCaptureStatus status{};
  cuuint64_t value = 0;
  CENOTE_DRIVER_CALL(cuStreamGetCaptureInfo, handle, &status, &value, nullptr, nullptr, nullptr);
  const CUstream branch = stream_ref(handle).is_per_thread_default() ? per_thread_branch(device) : handle;
  if (status == CU_STREAM_CAPTURE_STATUS_ACTIVE) return {value, branch};
  static constinit std::atomic<std::uint64_t> next_nobody{stream_id::first_nobody};  // also if it ended meanwhile
  return {next_nobody.fetch_add(1, std::memory_order_relaxed), branch};
}

/// The per-thread default stream is one of the current context; a handle of its own carries its context with it.
template <class Ask>
auto ask_in_context(stream_ref stream, int device, Ask&& ask) {
  if (!stream.is_per_thread_default()) return ask(stream.value());
  const device_scope scope(device);
  return ask(stream.value());
}

}  // namespace

constinit thread_local const identified_scope* identified_scope::innermost_ = nullptr;

CENOTE_HOT stream_id ask_who_it_is(stream_ref stream, int device) {
  if (const stream_id* const known = identified_scope::find(stream, device)) return *known;
  return ask_in_context(stream, device, [device](CUstream handle) {
    const bool captures = may_be_capturing(device) && capture_status(handle) != CU_STREAM_CAPTURE_STATUS_NONE;
    return captures ? id_in_capture(handle, device) : known_or_asked_id(handle);
  });
}

CENOTE_HOT bool is_capturing(stream_ref stream, int device) {
  if (stream.is_legacy_default() || !may_be_capturing(device)) return false;  // the driver captures no legacy stream
  if (const stream_id* const known = identified_scope::find(stream, device)) return known->is_capturing();
  return ask_in_context(stream, device, capture_status) != CU_STREAM_CAPTURE_STATUS_NONE;
}

}  // namespace cenote::inline v1
