// Allocation and free in stream order: the entry points that join a pool (pool/pool.hpp) with a stream
// (stream/stream.hpp).
#include <cstddef>
#include <cstdint>

#include "sim/device/allocation.hpp"
#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/current_call.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"
#include "sim/pool/pool_place.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

/// An allocation on a capturing stream is a node of the graph: the graph owns its memory, and no pool or card is
/// charged before the graph would run.
std::uintptr_t allocate_in_graph(const simulated_stream& stream, simulated_device& device, std::size_t bytes) {
  stream.capture->record(stream);
  auto block = allocate_block(block_kind::graph_owned, device, bytes);
  stream.capture->graph->blocks.push_back(block);
  return block->base;
}

std::uintptr_t allocate_in_order(simulated_stream& stream, simulated_pool& pool, std::size_t bytes) {
  if (!stream.capture) {
    captures().require_relaxed();
  }
  if (bytes == 0) {
    return 0;
  }
  return stream.capture ? allocate_in_graph(stream, pool.device, bytes) : pool.allocate(bytes, stream)->base;
}

void free_in_graph(const simulated_stream& stream, std::uintptr_t address) {
  const auto block = live_blocks().find_base(address);
  if (!block || block->kind != block_kind::graph_owned) {
    refuse_free(address);
  }
  stream.capture->record(stream);
}

/// cuMemFreeAsync takes memory of cuMemAlloc as well, which goes when the free runs.
void free_in_order(simulated_stream& stream, std::uintptr_t address) {
  captures().require_relaxed();
  const auto block = live_blocks().find_base(address);
  require(!block || block->kind != block_kind::managed, CUDA_ERROR_NOT_SUPPORTED);
  if (!block || (!block->pool && block->kind != block_kind::device)) {
    refuse_free(address);
  }
  live_blocks().remove(*block);
  block->state = block_state::freeing;
  block->ended_by = current_call();
  if (block->kind == block_kind::device) {
    stream.submit({.after = {}, .action = [block] { free_block(*block); }});
    return;
  }
  block->pool->free_in_order(block, stream);
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, std::size_t bytes, CUmemoryPool pool, CUstream stream) {
  return call(entry_id::cuMemAllocFromPoolAsync, [&] {
    require(address != nullptr);
    *address = allocate_in_order(*stream_of(stream), *pool_of(pool), bytes);
  });
}

CUresult cuMemAllocAsync(CUdeviceptr* address, std::size_t bytes, CUstream handle) {
  return call(entry_id::cuMemAllocAsync, [&] {
    require(address != nullptr);
    const auto stream = stream_of(handle);
    *address = allocate_in_order(*stream, *pool_of(current_device_pool(stream->context.device)), bytes);
  });
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  return call(entry_id::cuMemFreeAsync, [&] {
    const auto stream = stream_of(handle);
    if (address == 0 || addresses().is_retired(address)) {
      return;
    }
    if (stream->capture) {
      free_in_graph(*stream, address);
    } else {
      free_in_order(*stream, address);
    }
  });
}

}  // extern "C"
