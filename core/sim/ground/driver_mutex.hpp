// The one lock of the simulated driver.
//
// It guards everything that the driver knows, and is taken in two places: for a call of the driver (entry/call.cpp) and
// for one of the control interface (entry/control.hpp). It is released only while a host function runs
// (device/work.cpp), and while what a test wants to happen before a call does.
#pragma once

#include <condition_variable>
#include <mutex>

namespace cenote::sim {

/// The lock; never destroyed, as calls may come while the process exits.
std::mutex& driver_mutex();

/// Notified when a piece of work has run, which a thread may wait for that needs a queue another one runs.
std::condition_variable_any& progress();

}  // namespace cenote::sim
