// The objects that the program has made on this machine and not yet given back: as numbers, and as a list.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "sim/cenote_sim.h"
#include "sim/device/device.hpp"
#include "sim/device/physical_piece.hpp"
#include "sim/entry/control.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/made.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/reservation.hpp"
#include "sim/pool/pool.hpp"
#include "sim/pool/pool_place.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/event.hpp"
#include "sim/stream/graph.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

const char* name_of(block_kind kind) {
  switch (kind) {
    case block_kind::device:
      return "device memory";
    case block_kind::pinned:
      return "pinned memory";
    case block_kind::managed:
      return "managed memory";
    case block_kind::pooled:
      return "memory of a pool";
    case block_kind::pooled_pinned:
      return "pinned memory of a pool";
    case block_kind::pooled_managed:
      return "managed memory of a pool";
    case block_kind::graph_owned:
      return "memory of a graph";
    case block_kind::mapped:
      return "mapping";
  }
  return "";
}

bool is_default_pool(CUmemoryPool handle) {
  const auto& places = pool_places();
  return std::any_of(places.begin(), places.end(), [&](const auto& entry) { return entry.second.initial == handle; });
}

/// `visit(cenote_sim_live_object)` for everything, kind after kind.
template <class Visit>
void for_each_live(Visit&& visit) {
  const auto tell = [&](const char* kind, auto handle, std::size_t bytes, int device, const creation& made) {
    if (made.is_of_this_machine()) {
      visit(cenote_sim_live_object{kind, made.by, (std::uint64_t)handle, bytes, made.number, device});
    }
  };
  for (const auto& [base, block] : live_blocks().all()) {
    tell(name_of(block->kind), base, block->bytes, block->device->ordinal, block->made);
  }
  for (const auto& [base, reservation] : reservations()) {
    tell("reservation", base, reservation.bytes, -1, reservation.made);
  }
  live_pieces().for_each([&](auto handle, const std::shared_ptr<physical_piece>& physical) {
    tell("physical memory", handle, physical->bytes, physical->device.ordinal, physical->made);
  });
  live_pools().for_each([&](CUmemoryPool handle, const std::shared_ptr<simulated_pool>& pool) {
    if (!is_default_pool(handle)) {
      tell("pool", handle, pool->reserved_bytes(), pool->device.ordinal, pool->made);
    }
  });
  live_streams().for_each([&](CUstream handle, const std::shared_ptr<simulated_stream>& stream) {
    tell("stream", handle, 0, stream->context.device.ordinal, stream->made);
  });
  live_events().for_each([&](CUevent handle, const std::shared_ptr<simulated_event>& event) {
    tell("event", handle, 0, event->context.device.ordinal, event->made);
  });
  live_graphs().for_each(
      [&](CUgraph handle, const std::shared_ptr<captured_graph>& graph) { tell("graph", handle, 0, -1, graph->made); });
  live_executable_graphs().for_each([&](CUgraphExec handle, const std::shared_ptr<executable_graph>& executable) {
    tell("executable graph", handle, 0, -1, executable->made);
  });
}

cenote_sim_live_objects live_objects() {
  cenote_sim_live_objects live{};
  for (const simulated_device* device : devices()) {
    live.device_bytes += device->used_bytes;
    live.contexts += device->context.retained > 0;
  }
  for (const auto& [base, block] : live_blocks().all()) {
    ++(block->kind == block_kind::mapped ? live.mappings : live.allocations);
    live.pinned_bytes += block->pinned() ? block->bytes : 0;
    live.managed_bytes += block->managed() ? block->bytes : 0;
  }
  for_each_live([&](const cenote_sim_live_object& object) {
    const std::string_view kind = object.kind;
    live.pools += kind == "pool";
    live.streams += kind == "stream";
    live.events += kind == "event";
    live.graphs += kind == "graph" || kind == "executable graph";
    live.reservations += kind == "reservation";
    live.handles += kind == "physical memory";
  });
  return live;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

void cenote_sim_live(cenote_sim_live_objects* live) {
  const auto lock = lock_driver();
  *live = live_objects();
}

std::size_t cenote_sim_list_live(cenote_sim_live_object* objects, std::size_t capacity) {
  const auto lock = lock_driver();
  std::vector<cenote_sim_live_object> all;
  for_each_live([&](const cenote_sim_live_object& object) { all.push_back(object); });
  std::sort(all.begin(), all.end(), [](const auto& one, const auto& other) { return one.number < other.number; });
  std::copy_n(all.begin(), std::min(capacity, all.size()), objects);
  return all.size();
}

}  // extern "C"
