// Stream capture: what must not be done while work is being captured into a graph, and who says that it is.
//
// An event over a whole context, and waiting for one, invalidate every capture in progress there, whatever the mode;
// and the driver has no way to ask whether there is one on a stream that one does not hold, unless that is a blocking
// stream: the legacy default stream may not be named meanwhile, and asking about that one does no harm. Those who
// capture therefore say so: PyTorch does through its allocator's hooks. What would invalidate a capture is put off
// meanwhile.
//
// Other calls are legal beside a capture of another stream only in a relaxed_capture_scope: asking a stream, an event
// or a pool, waiting for a stream or an event, taking and giving memory. The functions of this layer enter one
// themselves.
//
// Threads: all functions from any thread.
// Source: measured, driver 580, H100 and H200.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

void capture_begins(int device);

/// True if no other capture was announced that is underway now. Then what was put off is done (after_captures.hpp).
bool capture_ended(int device);

/// It is not over, but not announced any more: nothing is done yet.
void capture_goes_on(int device);

/// The id of the capture that a stream is in; none where it is in none, or that was invalidated. Legal at any time. A
/// per-thread default stream is the calling thread's.
std::optional<std::uint64_t> capture_of(stream_ref stream, int device);

/// Whether anyone has said that work of `device` is being captured.
bool is_capture_announced(int device);

/// Whether a capture of work of `device` is known of: it is announced, it is that of a blocking stream, or the calling
/// thread is in a within_capture_scope. What ends captures must not be done then.
bool is_capture_underway(int device);

/// Waits, on the host, for all work of the device's primary context, unless a capture is known to be under way, which
/// that would end. Returns whether it has waited.
bool synchronize_beside_captures(int device);

/// Whether a call failed because it ended a capture, which nobody had announced.
bool has_ended_a_capture(const cuda_error& error) noexcept;

/// While it lives, the calling thread does something for a stream that is being captured, if `is_so`.
class within_capture_scope {
 public:
  explicit within_capture_scope(bool is_so) noexcept;
  ~within_capture_scope();
  within_capture_scope(const within_capture_scope&) = delete;
  within_capture_scope& operator=(const within_capture_scope&) = delete;

 private:
  bool outer_;
};

/// The program promises that every capture is announced, so that while none is no stream need be asked. As the
/// environment variable CENOTE_CAPTURES=announced.
CENOTE_EXPORT void promise_announced_captures(bool promised) noexcept;

/// Whether captures are announced: not known before the environment has been read.
enum class promise { unread, given, not_given };

extern std::atomic<promise> announced_captures;  // the program's word

/// The promise, read from the environment where need be.
promise read_promise();

/// Whether a stream of `device` may be being captured: somebody has said so, or nobody has promised that he would.
inline bool may_be_capturing(int device) {
  promise known = announced_captures.load(std::memory_order_relaxed);
  if (known == promise::unread) [[unlikely]]
    known = read_promise();
  return known != promise::given || is_capture_announced(device);
}

/// While it lives, calls that a capture in another stream would forbid (asking an event, taking memory) are legal on
/// this thread, as in PyTorch's allocator: they have nothing to do with what is being captured.
class relaxed_capture_scope {
 public:
  relaxed_capture_scope();
  ~relaxed_capture_scope();
  relaxed_capture_scope(const relaxed_capture_scope&) = delete;
  relaxed_capture_scope& operator=(const relaxed_capture_scope&) = delete;

 private:
  int previous_mode_;
};

}  // namespace cenote::inline v1
