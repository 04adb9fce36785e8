// The simulated driver: all that it knows, in one object that is made at the first call and never destroyed, so that it
// answers while the process exits.
//
// Threads: `mutex` guards every field here and everything reachable from them, and is taken in one place (call.hpp).
// It is released only while a host function runs (work.cpp).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "address_space.hpp"
#include "block.hpp"
#include "capture.hpp"
#include "context.hpp"
#include "device.hpp"
#include "event.hpp"
#include "handles.hpp"
#include "memory.hpp"
#include "physical_memory.hpp"
#include "placement.hpp"
#include "pool.hpp"
#include "pool_place.hpp"
#include "settings.hpp"
#include "stream.hpp"
#include "violations.hpp"

namespace cenote::sim {

struct address_reservation {
  std::size_t bytes;
  creation made;
};

struct Driver {
  std::mutex mutex;
  std::condition_variable_any progress;  ///< a host function has returned

  bool initialised = false;
  machine_settings settings;
  std::string wrong_settings;  ///< what cuInit refused CENOTE_SIM for; empty if it did not
  violation_log violations;
  std::vector<simulated_device*> devices;                      ///< that the process sees, by ordinal
  std::vector<std::unique_ptr<simulated_device>> all_devices;  ///< those of earlier machines included

  address_space addresses;
  physical_memory memory_of_cards;
  block_map blocks;
  placement_map placements;
  std::map<std::uintptr_t, address_reservation> reservations;  ///< by address, of cuMemAddressReserve

  handle_table<CUstream, simulated_stream> streams{"stream", 0x51};
  handle_table<CUevent, simulated_event> events{"event", 0x52};
  handle_table<CUmemoryPool, simulated_pool> pools{"pool", 0x53};
  pool_place_map pool_places;
  handle_table<CUgraph, captured_graph> graphs{"graph", 0x54};
  handle_table<CUmemGenericAllocationHandle, physical_piece> physical{"memory handle", 0x55};

  ongoing_captures captures;
  std::uint64_t last_stream_id = 0;
  std::uint64_t last_made = 0;
  std::uint64_t machine = 1;  ///< 1, 2, …: one more for each reset

  /// The CUDA version that the driver implements, known before cuInit as well.
  int version() const;

  /// What a synchronisation does for every pool: memory above the release threshold goes back to its device.
  void note_synchronisation();
};

Driver& driver();

/// Makes the cards that the settings say, of which the process sees what CUDA_VISIBLE_DEVICES lets it. Throws failure.
void build_machine(Driver& sim, const machine_settings& settings);

/// Ends the machine and builds another one: see reset.cpp. Throws failure, and nothing is changed.
void reset_machine(Driver& sim, const machine_settings& settings);

/// The object behind a handle. A dead one is written down, and the call fails with `otherwise`.
template <class Handle, class Object>
std::shared_ptr<Object> find_live(const handle_table<Handle, Object>& handles, Handle handle, CUresult otherwise) {
  auto object = handles.find(handle);
  if (!object) {
    driver().violations.add(std::string(handles.kind) + " " + hex((std::uintptr_t)handle) +
                            " does not exist, or was destroyed");
    fail(otherwise);
  }
  return object;
}

}  // namespace cenote::sim
