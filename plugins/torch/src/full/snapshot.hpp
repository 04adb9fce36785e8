// Segments for torch.cuda.memory_snapshot of memory whose layout the core keeps to itself.
//
//     pages      |  2 MiB  |  2 MiB  |            |  2 MiB  |
//     blocks     [s][s][gap][  L         ][gap]      [s][gap]
//     segments   small [s][s] · large [gap][L][gap] · small … · one for pages whose addresses are not known
//
//   1. A segment is a run of blocks of one kind in pages that follow one another. Gaps count as large: a pool serves
//      any size from them. So the sums of the segments are the statistics' figures.
//      While history is recorded, a segment is a whole run, of no stream: PyTorch's viewer goes back from event to
//      event, and looks for a segment around each run of pages that was mapped.
//   2. Pages in which nothing lives are known while history is recorded only. Where the core holds less than the known
//      pages, idle pages are named as unmapped; where it holds more, one segment stands for the rest.
//   3. Where the core does not hold whole pages (plain driver memory), segments are as small as their blocks.
//
// Invariants
//   I1  blocks tile their segments in address order
//   I2  the sizes of the segments add up to `held`, if that is at least the bytes of the blocks
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "live_block.hpp"
#include "private_pool.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

using placed_block = std::pair<std::uintptr_t, live_block>;

struct main_layout {
  std::vector<segment_info> segments;
  std::vector<std::size_t> unmapped_pages;
};

/// Of the blocks of the current resource. `held` are the bytes of the core, `pages` those that history knows, if it is
/// recorded.
main_layout lay_out(std::vector<placed_block> blocks, std::size_t held,
                    const std::optional<std::set<std::size_t>>& pages);

/// Of a private pool. `blocks` are the live ones of the device, by address.
std::vector<segment_info> lay_out(const private_pool& pool, mempool_id id, c10::DeviceIndex device,
                                  const std::vector<placed_block>& blocks);

}  // namespace cenote::torch
