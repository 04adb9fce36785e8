#include "cenote/driver/kept_stream.hpp"

#include <memory>
#include <stdexcept>
#include <string>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/thread_number.hpp"

namespace cenote::inline v1 {
namespace {

/// A default stream is each device's own; the others have one handle each.
bool is_one_stream(const kept_stream& a, int device_of_a, const kept_stream& b, int device_of_b) noexcept {
  if (a.handle().is_legacy_default()) return b.handle().is_legacy_default() && device_of_a == device_of_b;
  return a == b && (device_of_a == device_of_b || !a.handle().is_per_thread_default());
}

/// An event over the work of a context would end a capture there.
void require_no_capture(int device) {
  if (!is_capture_underway(device)) return;
  throw std::runtime_error(
      "memory was last used on the per-thread default stream of another thread, and while work of device " +
      std::to_string(device) +
      " is being captured nothing can be ordered after that: use the memory on this thread before the capture begins");
}

/// The moment after what is queued on `stream` so far. Beside the capture of a blocking stream the legacy default
/// stream may not be named: an unnamed_stream comes after it all the same.
std::shared_ptr<event> moment_of(const kept_stream& stream, int device) {
  if (!stream.handle().is_legacy_default()) return event::record_anywhere(stream.handle(), device);
  const unnamed_stream same(device);
  return event::record(same.view(), device);
}

}  // namespace

std::uint64_t kept_stream::this_thread() noexcept { return this_thread_number(); }

void order_after(const kept_stream& later, int later_device, const kept_stream& earlier, int earlier_device) {
  if (is_one_stream(later, later_device, earlier, earlier_device)) return;
  if (!later.is_known_here()) {
    if (!earlier.is_known_here() || !is_capturing(earlier.handle(), earlier_device))
      synchronize(earlier, earlier_device);
    return;
  }
  const stream_id waiting = identify(later.handle(), later_device);
  if (!earlier.is_known_here()) {
    if (waiting.is_capturing()) return;
    require_no_capture(earlier_device);
    return wait_for_all_work_of(earlier_device, later.handle(), later_device);
  }
  const stream_id awaited = identify(earlier.handle(), earlier_device);
  if (waiting.is_capturing() != awaited.is_capturing()) return;
  if (waiting.is_capturing() && waiting.value != awaited.value) return;  // two captures
  const auto moment = moment_of(earlier, earlier_device);
  if (accepts_work(later.handle(), later_device)) return wait(later.handle(), *moment, later_device);
  moment->synchronize();
}

void synchronize(const kept_stream& stream, int device) {
  if (stream.is_known_here()) return synchronize(stream.handle(), device);
  require_no_capture(device);
  if (const auto all_work = event::record_context(device)) return all_work->synchronize();
  synchronize_device(device);
}

}  // namespace cenote::inline v1
