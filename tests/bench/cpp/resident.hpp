// The memory of this process on the host: what the bookkeeping of a pool costs.
#pragma once

#include <cstddef>

namespace bench {

/// Bytes of this process in physical memory, after malloc has given back what it holds unused.
std::size_t resident_bytes();

}  // namespace bench
