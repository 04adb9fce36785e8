// What the tests of the structures share: the smallest block, and addresses that nothing lies at.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cenote/structures/block.hpp"

namespace cenote::test {

inline constexpr std::size_t granule = block_granularity;

inline std::byte* address(std::uintptr_t value) { return reinterpret_cast<std::byte*>(value); }

}  // namespace cenote::test
