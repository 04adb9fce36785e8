// What would end a capture, and is put off until there is none.
//
// What it does throws nothing but what is reported, and is done with then.
//
// Threads: any. What is put off runs on the thread that finds no capture any more, with no lock held.
#pragma once

#include <functional>

namespace cenote {

/// Does `what`, again and again until it returns true, once no capture of work of `device` is known of
/// (is_capture_underway): at once; or where an announced capture ends, memory runs out, or something else is to be done
/// after captures. Throws std::bad_alloc, and has done nothing then.
void do_after_captures(int device, std::function<bool()> what);

/// Does what was put off, unless it has to wait still. Whether there was any.
bool do_what_was_put_off(int device) noexcept;

}  // namespace cenote
