// The driver call that a thread is in, by its base name: for messages, and for what was made by which call.
#pragma once

namespace cenote::sim {

/// Of the calling thread; empty before its first call.
const char* current_call();

/// `name` lives as long as the process.
void set_current_call(const char* name);

}  // namespace cenote::sim
