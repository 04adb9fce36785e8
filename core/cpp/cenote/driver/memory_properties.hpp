// Properties that the driver must be asked for together with memory, for its pools and for single pages alike.
#pragma once

#include "cenote/driver/memory_pool.hpp"

namespace cenote::inline v1 {

/// The CUmemAllocationHandleType bits of these kinds.
int handle_types(export_handles handles) noexcept;

/// Blackwell and later: memory that the device's decompression engine may read must be asked for.
bool has_decompression_engine(int device);

}  // namespace cenote::inline v1
