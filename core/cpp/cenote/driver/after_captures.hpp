// Actions that would end a capture, such as an event over all work: they are put off until there is no capture.
//
// An action must not throw: an exception is reported, and the action is not tried again.
//
// Threads: any. An action runs on the thread that finds that no capture is left, with no lock held.
#pragma once

#include <functional>

namespace cenote::inline v1 {

/// Runs `action` as soon as no capture on `device` is known of (is_capture_underway), and again until it returns true:
/// at once if there is none; otherwise where an announced capture ends, memory runs out, or another action is added.
/// Throws std::bad_alloc; nothing was done then.
void do_after_captures(int device, std::function<bool()> action);

/// Runs the actions that were put off, unless a capture is still under way. Returns whether there were any.
bool do_what_was_put_off(int device) noexcept;

}  // namespace cenote::inline v1
