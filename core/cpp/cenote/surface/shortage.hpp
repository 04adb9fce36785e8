// The clients, tags and call sites that hold the device's memory, as an allocation that fails reports them.
//
// Threads: any. Cost: a walk over all that is held, 30 ns a block, when memory has run out.
#pragma once

#include <vector>

#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/surface/client.hpp"

namespace cenote::inline v1 {

/// Who holds what of a device: clients, then tags, then call sites, each the largest first. Without tags if nothing
/// held has one, and without call sites if nothing held was sampled.
CENOTE_EXPORT std::vector<memory_holder> holders_of(int device);

/// The error with the holders in it, which the flight recorder notes too. One that has them, or knows no device, is
/// returned as it is.
CENOTE_EXPORT out_of_memory explained(const out_of_memory& error, client_index client, stream_id stream);

}  // namespace cenote::inline v1
