// An event: a moment in a stream's work, or in that of a whole context, for which others can wait.
#pragma once

#include <array>
#include <memory>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

struct CUevent_st;

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// An event as another process opens it.
using event_handle = std::array<unsigned char, 64>;

class event {
 public:
  ~event();
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  /// The moment after all work queued on `stream` so far.
  static std::shared_ptr<event> record(stream_ref stream, int device);

  /// The same for a stream that may be another device's; `device` is that of a default stream.
  static std::shared_ptr<event> record_anywhere(stream_ref stream, int device);

  /// The same, for other processes too, which know it by its handle.
  static std::shared_ptr<event> record_for_others(stream_ref stream, int device);

  /// Another process's event. It lives as long as that one's does; what waited for it by then is not concerned.
  static std::shared_ptr<event> open(const event_handle& handle, int device);

  /// Throws cuda_error for an event that is not for other processes.
  event_handle handle() const;

  /// From now on the event is the moment after all work queued on `stream` so far. Who waited for it before waited for
  /// the moment that it was. Only for an event that nobody else holds.
  void record_again(stream_ref stream, int device);

  /// The moment after all work queued so far on any stream of the device's primary context, also on streams that have
  /// been destroyed since. Null where the driver cannot (before 12.5). Not while anything is being captured
  /// (capture.hpp): that capture would be invalidated.
  static std::shared_ptr<event> record_context(int device);

  /// Whether the moment has passed. Never waits.
  bool is_complete() const;

  /// Waits on the host for the moment to pass.
  void synchronize() const;

  CUevent_st* value() const noexcept { return handle_; }

 private:
  event() noexcept = default;
  explicit event(int device, unsigned flags = 0);

  CUevent_st* handle_ = nullptr;
  int device_ = -1;
};

/// Work queued on `later` from now on runs after the work queued on `earlier` so far. The device waits, the host does
/// not. `device` is that of a default stream; the others may be any device's.
CENOTE_EXPORT void order_after(stream_ref later, stream_ref earlier, int device);

/// Work queued on `stream` from now on runs after all work that the device has been given by now. The device waits; the
/// host does where the driver has no event over a context. Not while anything is being captured (capture.hpp).
CENOTE_EXPORT void wait_for_all_work(stream_ref stream, int device);

/// The same where the work is that of `other`, and `stream` is of `device`.
CENOTE_EXPORT void wait_for_all_work_of(int other, stream_ref stream, int device);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
