#include "sim/machine/context_end.hpp"

#include <memory>
#include <vector>

#include "sim/device/allocation.hpp"
#include "sim/device/context.hpp"
#include "sim/device/device.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/memory/block.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/event.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {

void end_context(primary_context& context) {
  advance(context.all_work());
  captures().forget(context);
  live_streams().for_each([&](CUstream handle, const std::shared_ptr<simulated_stream>& stream) {
    if (&stream->context == &context) {
      live_streams().remove(handle);
    }
  });
  live_events().for_each([&](CUevent handle, const std::shared_ptr<simulated_event>& event) {
    if (&event->context == &context) {
      live_events().remove(handle);
    }
  });
  std::vector<std::shared_ptr<memory_block>> blocks;
  for (const auto& [base, block] : live_blocks().all()) {
    if (block->device == &context.device && block->in_context()) {
      blocks.push_back(block);
    }
  }
  for (const auto& block : blocks) {
    free_block(*block);
  }
  for (const auto& device : devices()) {
    device->context.open_peers.erase(&context);
  }
  context.open_peers.clear();
  context.legacy_stream.reset();
  context.thread_streams.clear();
  context.busy = {};
}

}  // namespace cenote::sim
