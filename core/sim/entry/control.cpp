#include "sim/entry/control.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

#include "sim/cenote_sim.h"
#include "sim/device/device.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/error_text.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/settings.hpp"
#include "sim/ground/violations.hpp"
#include "sim/ground/visible_devices.hpp"
#include "sim/machine/reset.hpp"

namespace cenote::sim {
namespace {

/// The text, terminated and cut to the capacity.
void copy_text(const char* text, char* out, std::size_t capacity) {
  if (capacity > 0) {
    std::snprintf(out, capacity, "%s", text);
  }
}

/// 0 once `body` has run; -1, with the reason in `why`, where it throws.
template <class Body>
int explain(char* why, std::size_t capacity, Body&& body) {
  try {
    body();
    return 0;
  } catch (const std::invalid_argument& error) {
    copy_text(error.what(), why, capacity);
  } catch (const failure& refused) {
    copy_text(refused.code == CUDA_ERROR_INVALID_DEVICE ? "CUDA_VISIBLE_DEVICES names a device twice"
                                                        : "the host has no memory left",
              why, capacity);
  } catch (const std::bad_alloc&) {
    copy_text("the host has no memory left", why, capacity);
  }
  return -1;
}

machine_settings settings_of(const char* text) {
  return text == nullptr ? settings_from_environment() : parse_settings(text);
}

/// Counts, armed failures and violations start anew.
void forget_what_tests_asked_for() {
  violations().clear();
  for (call_record& record : call_records().rows) {
    const char* const name = record.name;
    record = {};
    record.name = name;
  }
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

int cenote_sim_check(const char* settings, char* why, std::size_t capacity) {
  return explain(why, capacity, [&] { settings_of(settings); });
}

int cenote_sim_reset(const char* settings, char* why, std::size_t capacity) {
  const auto lock = lock_driver();
  return explain(why, capacity, [&] {
    reset_machine(settings_of(settings));
    forget_what_tests_asked_for();
  });
}

int cenote_sim_uuid(int index, char* text, std::size_t capacity) {
  const auto lock = lock_driver();
  int length = -1;
  explain(text, capacity, [&] {
    const auto cards = cards_of(this_machine().initialised ? this_machine().settings : settings_from_environment());
    if (index >= 0 && static_cast<std::size_t>(index) < cards.size()) {
      const std::string& uuid = cards[static_cast<std::size_t>(index)].uuid;
      copy_text(uuid.c_str(), text, capacity);
      length = static_cast<int>(uuid.size());
    }
  });
  return length;
}

int cenote_sim_initialized() {
  const auto lock = lock_driver();
  return this_machine().initialised;
}

long long cenote_sim_calls(const char* name) {
  const auto lock = lock_driver();
  if (name != nullptr) {
    const call_record* const record = find_call_record(name);
    return record == nullptr ? -1 : static_cast<long long>(record->calls);
  }
  std::uint64_t all = 0;
  for (const call_record& record : call_records().rows) {
    all += record.calls;
  }
  return static_cast<long long>(all);
}

void cenote_sim_reset_calls() {
  const auto lock = lock_driver();
  for (call_record& record : call_records().rows) {
    record.calls = 0;
  }
}

const char* cenote_sim_name(int index) {
  const call_record_table& records = call_records();
  return index >= 0 && static_cast<std::size_t>(index) < records.count ? records.rows[index].name : nullptr;
}

int cenote_sim_fail(const char* name, int nth, int error) { return cenote_sim_fail_from(name, nth, 1, error); }

int cenote_sim_fail_from(const char* name, int nth, int times, int error) {
  const auto lock = lock_driver();
  call_record* const record = name == nullptr ? nullptr : find_call_record(name);
  if (record == nullptr || nth < 0 || times < 0 || (nth > 0 && error <= 0)) {
    return -1;
  }
  record->fail_in = nth;
  record->fail_times = times;
  record->error = static_cast<CUresult>(error);
  return 0;
}

int cenote_sim_before(const char* name, void (*meanwhile)(void*), void* context) {
  const auto lock = lock_driver();
  call_record* const record = name == nullptr ? nullptr : find_call_record(name);
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

int cenote_sim_violation_count() {
  const auto lock = lock_driver();
  return static_cast<int>(violations().lines().size());
}

int cenote_sim_violation(int index, char* text, std::size_t capacity) {
  const auto lock = lock_driver();
  const auto& lines = violations().lines();
  if (index < 0 || static_cast<std::size_t>(index) >= lines.size()) {
    return -1;
  }
  return std::snprintf(text, capacity, "%s", lines[static_cast<std::size_t>(index)].c_str());
}

void cenote_sim_clear_violations() {
  const auto lock = lock_driver();
  violations().clear();
}

std::uint64_t cenote_sim_pending() {
  const auto lock = lock_driver();
  std::uint64_t pending = 0;
  for (const auto& device : all_devices()) {
    for (const auto& [id, queue] : device->context.busy.all) {
      pending += queue->pending();
    }
  }
  return pending;
}

void cenote_sim_drain() {
  {
    const auto lock = lock_driver();
    for (const auto& device : all_devices()) {
      advance(device->context.all_work());
    }
  }
  run_destructors();
}

}  // extern "C"
