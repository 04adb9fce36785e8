#include <algorithm>
#include <cstdio>

#include "call.hpp"
#include "cenote_sim.h"
#include "driver.hpp"
#include "error_text.hpp"

namespace cenote::sim {
namespace {

std::unique_lock<std::mutex> lock_driver() { return std::unique_lock(driver().mutex); }

void add_block(cenote_sim_live_objects& live, const Block& block) {
  if (block.kind == BlockKind::mapped) {
    ++live.mappings;
    return;
  }
  ++live.allocations;
  live.pinned_bytes += block.pinned() ? block.bytes : 0;
  live.managed_bytes += block.managed() ? block.bytes : 0;
}

cenote_sim_live_objects live_objects() {
  const Driver& sim = driver();
  cenote_sim_live_objects live{};
  for (const auto& device : sim.devices) {
    live.device_bytes += device->used_bytes;
    live.contexts += device->context.retained > 0;
  }
  for (const auto& [base, block] : sim.blocks.all()) {
    add_block(live, *block);
  }
  live.pools = sim.pools.size() - sim.pool_places.size();
  live.streams = sim.streams.size();
  live.events = sim.events.size();
  live.graphs = sim.graphs.size();
  live.reservations = sim.reservations.size();
  live.handles = sim.physical.size();
  return live;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

int cenote_sim_initialized() {
  const auto lock = lock_driver();
  return driver().initialised;
}

long long cenote_sim_calls(const char* name) {
  const auto lock = lock_driver();
  if (name != nullptr) {
    const CallRecord* const record = call_record(name);
    return record == nullptr ? -1 : static_cast<long long>(record->calls);
  }
  std::uint64_t all = 0;
  for (const CallRecord& record : call_records().rows) {
    all += record.calls;
  }
  return static_cast<long long>(all);
}

void cenote_sim_reset_calls() {
  const auto lock = lock_driver();
  for (CallRecord& record : call_records().rows) {
    record.calls = 0;
  }
}

const char* cenote_sim_name(int index) {
  const CallRecords& records = call_records();
  return index >= 0 && static_cast<std::size_t>(index) < records.count ? records.rows[index].name : nullptr;
}

int cenote_sim_fail(const char* name, int nth, int error) {
  const auto lock = lock_driver();
  CallRecord* const record = name == nullptr ? nullptr : call_record(name);
  if (record == nullptr || nth < 0 || (nth > 0 && error <= 0)) {
    return -1;
  }
  record->fail_in = nth;
  record->error = static_cast<CUresult>(error);
  return 0;
}

int cenote_sim_before(const char* name, void (*meanwhile)(void*), void* context) {
  const auto lock = lock_driver();
  CallRecord* const record = name == nullptr ? nullptr : call_record(name);
  if (record == nullptr) {
    return -1;
  }
  record->before = {meanwhile, context};
  return 0;
}

int cenote_sim_error(const char* name) {
  const auto code = name == nullptr ? std::nullopt : error_code(name);
  return code ? static_cast<int>(*code) : -1;
}

void cenote_sim_live(cenote_sim_live_objects* live) {
  const auto lock = lock_driver();
  *live = live_objects();
}

int cenote_sim_violation_count() {
  const auto lock = lock_driver();
  return static_cast<int>(driver().violations.lines().size());
}

int cenote_sim_violation(int index, char* text, std::size_t capacity) {
  const auto lock = lock_driver();
  const auto& lines = driver().violations.lines();
  if (index < 0 || static_cast<std::size_t>(index) >= lines.size()) {
    return -1;
  }
  return std::snprintf(text, capacity, "%s", lines[static_cast<std::size_t>(index)].c_str());
}

void cenote_sim_clear_violations() {
  const auto lock = lock_driver();
  driver().violations.clear();
}

std::uint64_t cenote_sim_pending() {
  const auto lock = lock_driver();
  std::uint64_t pending = 0;
  for (const auto& device : driver().devices) {
    for (const auto& [id, queue] : device->context.busy.all) {
      pending += queue->pending();
    }
  }
  return pending;
}

void cenote_sim_drain() {
  const auto lock = lock_driver();
  for (const auto& device : driver().devices) {
    advance(device->context.all_work());
  }
}

}  // extern "C"
