#include "sim/machine/reset.hpp"

#include <cstddef>
#include <memory>
#include <vector>

#include "sim/device/device.hpp"
#include "sim/device/physical_piece.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/settings.hpp"
#include "sim/ground/visible_devices.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/placement.hpp"
#include "sim/memory/reservation.hpp"
#include "sim/pool/pool.hpp"
#include "sim/pool/pool_place.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/graph.hpp"

namespace cenote::sim {
namespace {

void finish_all_work() {
  for (const auto& device : all_devices()) {
    while (!device->context.busy.all.empty()) {
      advance(device->context.all_work());
    }
    captures().forget(device->context);
  }
}

void retire_memory() {
  live_graphs().for_each([&](CUgraph handle, const std::shared_ptr<captured_graph>& graph) {
    graph->blocks.clear();
    live_graphs().retire(handle);
  });
  live_executable_graphs().for_each([&](CUgraphExec handle, const std::shared_ptr<executable_graph>& executable) {
    executable->graph->blocks.clear();
    live_executable_graphs().retire(handle);
  });
  for (const auto& [base, block] : live_blocks().all()) {
    block->state = block_state::dead;
    block->ended_by = "a reset of the simulated machine";
    block->physical = nullptr;
  }
  live_blocks().clear();
  live_pieces().for_each([&](auto handle, const auto&) { live_pieces().retire(handle); });
  live_pools().for_each([](CUmemoryPool, const std::shared_ptr<simulated_pool>& pool) { pool->forget_memory(); });
  for (const auto& [base, reservation] : reservations()) {
    unseal(base, reservation.bytes);
  }
  reservations().clear();
  placements() = {};
  addresses().retire_all();
  for (const auto& device : all_devices()) {
    device->used_bytes = 0;
  }
}

}  // namespace

void build_machine(const machine_settings& settings) {
  const std::vector<card_description> cards = visible_cards(settings);
  this_machine().settings = settings;
  addresses().poison_everything = settings.poison;
  devices().clear();
  for (const auto& device : all_devices()) {
    device->present = false;
  }
  for (std::size_t ordinal = 0; ordinal < cards.size(); ++ordinal) {
    if (ordinal == all_devices().size()) {
      all_devices().push_back(std::make_unique<simulated_device>(static_cast<int>(ordinal)));
    }
    simulated_device& device = *all_devices()[ordinal];
    device.card = cards[ordinal];
    device.present = true;
    devices().push_back(&device);
  }
  this_machine().initialised = !cards.empty();
  if (this_machine().initialised) {
    make_default_pools();
  }
}

void reset_machine(const machine_settings& settings) {
  visible_cards(settings);  // what is wrong is said before anything is changed
  finish_all_work();
  retire_memory();
  this_thread().depth = 0;
  this_thread().capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  ++this_machine().number;
  build_machine(settings);
}

}  // namespace cenote::sim
