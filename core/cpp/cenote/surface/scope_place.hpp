// Where the resource lies that the calling thread's scopes name for a device: what the registry asks first.
//
// Threads: any. Cost: a load; while any thread has a scope, a walk along this thread's.
#pragma once

#include <atomic>

#include "cenote/surface/resource_place.hpp"

namespace cenote::inline v1 {

/// Is used again after its scope, and never destroyed: blocks hold what lay there.
struct scope_place : resource_place {
  scope_place* next = nullptr;  // among the spare ones
};

/// How many scopes there are in the process.
extern std::atomic<int> open_scopes;

/// Null where no scope of this thread is for the device.
resource_place* place_of_scope(int device) noexcept;

inline resource_place* find_place_of_scope(int device) noexcept {
  return open_scopes.load(std::memory_order_relaxed) == 0 ? nullptr : place_of_scope(device);
}

}  // namespace cenote::inline v1
