// The sizes by which PyTorch's statistics are defined.
#pragma once

#include <cstddef>

namespace cenote::torch {

constexpr std::size_t block_granularity = 512;               ///< sizes are rounded up to it
constexpr std::size_t largest_small = std::size_t{1} << 20;  ///< counted as of the small pool
constexpr std::size_t page_bytes = std::size_t{2} << 20;     ///< of segments in a snapshot
constexpr std::size_t one_exbibyte = std::size_t{1} << 60;   ///< refused at once

constexpr std::size_t round_up(std::size_t bytes, std::size_t granularity) {
  return (bytes + granularity - 1) / granularity * granularity;
}

}  // namespace cenote::torch
