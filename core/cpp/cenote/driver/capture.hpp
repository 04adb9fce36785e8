// Stream capture: what must not be done while work is being captured into a graph, and who says that it is.
//
// An event over a whole context, and waiting for one, invalidate every capture in progress there, whatever the mode;
// and the driver has no way to ask whether there is one on a stream that one does not hold. Those who capture therefore
// say so: PyTorch does through its allocator's hooks. What would invalidate a capture is put off meanwhile.
//
// Threads: all functions from any thread.
// Source: measured, driver 580, H100.
#pragma once

#include <atomic>

namespace cenote {

void capture_begins(int device);

/// True if no other capture is underway now.
bool capture_ended(int device);

/// Whether anyone has said that work of `device` is being captured.
bool is_capture_underway(int device);

/// The program promises that every capture is announced, so that while none is no stream need be asked. As the
/// environment variable CENOTE_CAPTURES=announced.
void promise_announced_captures(bool promised) noexcept;

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
  return known != promise::given || is_capture_underway(device);
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

}  // namespace cenote
