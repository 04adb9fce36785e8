// Another machine in the same process: what becomes of everything that was made on the one before.
//
// 1. All work runs, and captures are dropped.
// 2. Memory of every kind is gone: allocations, reservations, physical memory, graphs. Its addresses and handles are
//    not given out again soon, so that a program that still has them harms nobody: to free them is taken and does
//    nothing, to use them is refused and written down.
// 3. Streams, events, pools and contexts stay, with the handles that they had: pools are empty, events are complete.
//    Those of a card that the new machine does not have cannot be used, until there is such a card again.
// 4. The calling thread has no current context. Counts, armed failures and violations start anew.
// 5. The cards have the new names and sizes.
//
// Threads: no other thread uses the driver meanwhile.
#include <memory>
#include <vector>

#include "call.hpp"
#include "driver.hpp"
#include "visible_devices.hpp"

namespace cenote::sim {

creation made_now() {
  Driver& sim = driver();
  return {current_call(), ++sim.last_made, sim.machine};
}

bool creation::is_of_this_machine() const { return machine == driver().machine; }

namespace {

void finish_all_work(Driver& sim) {
  for (const auto& device : sim.all_devices) {
    while (!device->context.busy.all.empty()) {
      advance(device->context.all_work());
    }
    sim.captures.forget(device->context);
  }
}

void retire_memory(Driver& sim) {
  sim.graphs.for_each([&](CUgraph handle, const std::shared_ptr<captured_graph>& graph) {
    graph->blocks.clear();
    sim.graphs.retire(handle);
  });
  for (const auto& [base, block] : sim.blocks.all()) {
    block->state = block_state::dead;
    block->ended_by = "a reset of the simulated machine";
    block->physical = nullptr;
  }
  sim.blocks.clear();
  sim.physical.for_each([&](auto handle, const auto&) { sim.physical.retire(handle); });
  sim.pools.for_each([](CUmemoryPool, const std::shared_ptr<simulated_pool>& pool) { pool->forget_memory(); });
  for (const auto& [base, reservation] : sim.reservations) {
    unseal(base, reservation.bytes);
  }
  sim.reservations.clear();
  sim.placements = {};
  sim.addresses.retire_all();
  for (const auto& device : sim.all_devices) {
    device->used_bytes = 0;
  }
}

void forget_what_tests_asked_for(Driver& sim) {
  sim.violations.clear();
  for (call_record& record : call_records().rows) {
    const char* const name = record.name;
    record = {};
    record.name = name;
  }
}

}  // namespace

void build_machine(Driver& sim, const machine_settings& settings) {
  const std::vector<card_description> cards = visible_cards(settings);
  sim.settings = settings;
  sim.addresses.poison_everything = settings.poison;
  sim.devices.clear();
  for (const auto& device : sim.all_devices) {
    device->present = false;
  }
  for (std::size_t ordinal = 0; ordinal < cards.size(); ++ordinal) {
    if (ordinal == sim.all_devices.size()) {
      sim.all_devices.push_back(std::make_unique<simulated_device>(static_cast<int>(ordinal)));
    }
    simulated_device& device = *sim.all_devices[ordinal];
    device.card = cards[ordinal];
    device.present = true;
    sim.devices.push_back(&device);
  }
  sim.initialised = !cards.empty();
  if (sim.initialised) {
    make_default_pools();
  }
}

void reset_machine(Driver& sim, const machine_settings& settings) {
  visible_cards(settings);  // what is wrong is said before anything is changed
  finish_all_work(sim);
  retire_memory(sim);
  forget_what_tests_asked_for(sim);
  this_thread().depth = 0;
  this_thread().capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  ++sim.machine;
  build_machine(sim, settings);
}

}  // namespace cenote::sim
