#include "sim/entry/call.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/device/context.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/ground/current_call.hpp"
#include "sim/ground/driver_mutex.hpp"
#include "sim/ground/machine.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/graph.hpp"

namespace cenote::sim {
namespace {

std::atomic<bool> inherited_by_fork{false};

/// The lock is held over a fork, so that a child may still ask for counts and violations.
[[maybe_unused]] const int watch_forks = pthread_atfork([] { driver_mutex().lock(); }, [] { driver_mutex().unlock(); },
                                                        [] {
                                                          inherited_by_fork = this_machine().initialised;
                                                          driver_mutex().unlock();
                                                        });

std::array<std::size_t, entry_count> record_of_entry() {
  std::array<std::size_t, entry_count> record{};
  auto& records = call_records();
  for (std::size_t i = 0; i < entry_count; ++i) {
    record[i] = static_cast<std::size_t>(find_call_record(entry_points()[i].name) - records.rows.data());
  }
  return record;
}

call_record& record_of(entry_id entry) {
  static const auto record_index = record_of_entry();
  return call_records().rows[record_index[static_cast<std::size_t>(entry)]];
}

/// The lock is released meanwhile.
void run_what_comes_before(call_record& record, std::unique_lock<std::mutex>& lock) {
  const call_hook before = std::exchange(record.before, {});
  if (before.run == nullptr) {
    return;
  }
  lock.unlock();
  before.run(before.context);
  set_current_call(record.name);  // it may have called the driver
  lock.lock();
}

void count_or_fail(call_record& record) {
  ++record.calls;
  if (record.fail_in == 0) {
    return;
  }
  if (record.fail_in > 1) {
    --record.fail_in;
    return;
  }
  if (record.fail_times > 0 && --record.fail_times == 0) {
    record.fail_in = 0;
  }
  fail(record.error);
}

void check_scope(call_scope scope) {
  if (scope != call_scope::anytime) {
    require(this_machine().initialised, CUDA_ERROR_NOT_INITIALIZED);
  }
  if (scope == call_scope::in_context) {
    current_context();
  }
}

}  // namespace

void run_destructors() noexcept {
  std::vector<host_call> ended;
  {
    const std::lock_guard lock(driver_mutex());
    ended.swap(ended_user_objects());
  }
  for (const auto& [function, argument] : ended) {
    this_thread().in_host_function = true;
    function(argument);
    this_thread().in_host_function = false;
  }
}

const std::array<entry_point, entry_count>& entry_points() {
  static const std::array<entry_point, entry_count> rows{{
#define SIM_ENTRY_POINT(symbol, name, version, scope, capture) \
  {#symbol, #name, version, call_scope::scope, capture_rule::capture, reinterpret_cast<void*>(&::symbol)},
#include "sim/entry/entry_points.hpp"
#undef SIM_ENTRY_POINT
  }};
  return rows;
}

call_record_table& call_records() {
  static call_record_table* const records = [] {
    auto* made = new call_record_table;  // never destroyed: calls may come while the process exits
    for (const entry_point& entry : entry_points()) {
      if (made->count == 0 || std::string_view(made->rows[made->count - 1].name) != entry.name) {
        made->rows[made->count++].name = entry.name;
      }
    }
    return made;
  }();
  return *records;
}

call_record* find_call_record(const char* name) {
  call_record_table& records = call_records();
  auto* const end = records.rows.data() + records.count;
  auto* const found = std::find_if(records.rows.data(), end,
                                   [&](const call_record& row) { return std::string_view(row.name) == name; });
  return found == end ? nullptr : found;
}

std::unique_lock<std::mutex> enter(entry_id entry) {
  require(!inherited_by_fork, CUDA_ERROR_NOT_INITIALIZED);
  require(!this_thread().in_host_function, CUDA_ERROR_NOT_PERMITTED);
  const entry_point& row = entry_points()[static_cast<std::size_t>(entry)];
  set_current_call(row.name);

  std::unique_lock lock(driver_mutex());
  call_record& record = record_of(entry);
  run_what_comes_before(record, lock);
  count_or_fail(record);
  check_scope(row.scope);
  if (row.capture == capture_rule::relaxed) {
    captures().require_relaxed();
  }
  return lock;
}

}  // namespace cenote::sim
