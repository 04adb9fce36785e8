// Stream capture: what must not be done while work is being captured into a graph, and who says that it is.
//
// An event over a whole context, and waiting for one, invalidate every capture in progress there, whatever the mode;
// and the driver has no way to ask whether there is one on a stream that one does not hold. Those who capture therefore
// say so: PyTorch does through its allocator's hooks. What would invalidate a capture is put off meanwhile.
//
// Threads: all functions from any thread.
// Source: measured, driver 580, H100.
#pragma once

namespace cenote {

void capture_begins(int device);

/// True if no other capture is underway now.
bool capture_ended(int device);

/// Whether anyone has said that work of `device` is being captured.
bool is_capture_underway(int device);

/// The program promises that every capture is announced, so that while none is no stream need be asked. As the
/// environment variable CENOTE_CAPTURES=announced.
void promise_announced_captures(bool promised) noexcept;

/// Whether a stream of `device` may be being captured: somebody has said so, or nobody has promised that he would.
bool may_be_capturing(int device);

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
