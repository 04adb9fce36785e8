// A block of a driver's pool, for another process: a descriptor of the pool, and what names the block in it.
//
// Only pools that were made for it can be exported: `async:ipc=true`. The other process can map the blocks that it is
// told of, and no others. It must let a block go before its owner frees it.
//
// Threads: any.
#pragma once

#include <array>
#include <optional>

#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {

/// The driver's own (CUmemPoolPtrExportData).
using exported_pointer = std::array<unsigned char, 64>;

struct exported_pool_block {
  file_descriptor pool;
  exported_pointer pointer;
};

/// None where no block of such a pool begins at the address.
std::optional<exported_pool_block> export_pool_block(const void* address, int device);

}  // namespace cenote::inline v1
