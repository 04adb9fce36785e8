#include "memory_history.hpp"

#include <c10/util/ApproximateClock.h>

#include <type_traits>

#include "sizes.hpp"

namespace cenote::torch {
namespace {

const char* name_of(trace_entry::Action action) {
  switch (action) {
    case trace_entry::ALLOC:
      return "alloc";
    case trace_entry::FREE_REQUESTED:
      return "free_requested";
    case trace_entry::FREE_COMPLETED:
      return "free_completed";
    case trace_entry::SEGMENT_ALLOC:
      return "segment_alloc";
    case trace_entry::SEGMENT_FREE:
      return "segment_free";
    case trace_entry::SEGMENT_MAP:
      return "segment_map";
    case trace_entry::SEGMENT_UNMAP:
      return "segment_unmap";
    case trace_entry::SNAPSHOT:
      return "snapshot";
    case trace_entry::OOM:
      return "oom";
    default:
      return "annotate";
  }
}

std::vector<std::string>& compile_contexts() {
  thread_local std::vector<std::string> contexts;
  return contexts;
}

/// PyTorch's converter from the processor's clock takes a thousand readings when it is made.
c10::ApproximateClockToUnixTimeConverter& converter() {
  static auto* const made = new c10::ApproximateClockToUnixTimeConverter();
  return *made;
}

}  // namespace

void memory_history::configure(const settings& wanted) {
  converter();
  const std::lock_guard lock(mutex_);
  enabled_.store(wanted.enabled, std::memory_order_relaxed);
  recorder_.store(wanted.recorder, std::memory_order_relaxed);
  level_.store(wanted.enabled ? wanted.when : record_level::NEVER, std::memory_order_relaxed);
  max_entries_ = std::max<std::size_t>(1, wanted.max_entries);
  skipped_ = {wanted.skipped.begin(), wanted.skipped.end()};
  if (!wanted.enabled || wanted.clear) {
    entries_.clear();
    annotations_.clear();
  }
  pages_.clear();
}

trace_entry memory_history::spell(const traced& what, const context& stack) const {
  const auto& contexts = compile_contexts();
  const auto stream = static_cast<traced_stream>(what.stream);
  const std::string compiled = contexts.empty() ? "unknown" : contexts.back();
  const context kept = level_.load(std::memory_order_relaxed) >= record_level::ALLOC ? stack : nullptr;
  const auto now = c10::getApproximateTime();
  return [&]<class Entry>(std::type_identity<Entry>) -> Entry {
    if constexpr (std::is_constructible_v<Entry, trace_entry::Action, c10::DeviceIndex, std::size_t, std::size_t,
                                          traced_stream, mempool_id, decltype(now), context, std::string,
                                          std::string>) {
      return {what.action, what.device, what.address, what.bytes, stream,
              what.pool,   now,         kept,         compiled,   user_metadata_};
    } else {  // until 2.9, without the program's metadata
      return {what.action, what.device, what.address, what.bytes, stream, what.pool, now, kept, compiled};
    }
  }(std::type_identity<trace_entry>{});
}

void memory_history::keep_locked(trace_entry entry) {
  if (!skipped_.empty() && skipped_.count(name_of(entry.action_)) != 0) return;
  auto& ring = entries_[entry.device_];
  while (ring.size() >= max_entries_) ring.pop_front();
  ring.push_back(std::move(entry));
}

void memory_history::record_enabled(const traced& what, const context& stack) {
  const std::lock_guard lock(mutex_);
  keep_locked(spell(what, stack));
}

void memory_history::record_segment(const traced& what, const context& stack) {
  const std::lock_guard lock(mutex_);
  if (!is_enabled() && trackers_.empty()) return;
  const trace_entry entry = spell(what, stack);
  for (const auto& tracker : trackers_) tracker(entry);
  if (is_enabled()) keep_locked(entry);
}

void memory_history::record_allocation(const traced& what, const context& stack) {
  if (!is_enabled()) return;
  const std::lock_guard lock(mutex_);
  auto& known = pages_[what.device];
  const std::size_t end = round_up(what.address + what.bytes, page_bytes);
  std::size_t run = 0;
  for (std::size_t page = what.address / page_bytes * page_bytes; page <= end; page += page_bytes) {
    const bool is_new = page < end && known.insert(page).second;
    if (is_new) {
      run += page_bytes;
    } else if (run != 0) {
      keep_locked(spell({trace_entry::SEGMENT_MAP, what.device, page - run, run, nullptr, what.pool}, stack));
      run = 0;
    }
  }
  keep_locked(spell(what, stack));
}

void memory_history::know_pages(c10::DeviceIndex device, std::size_t address, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  for (std::size_t page = address / page_bytes * page_bytes; page < address + bytes; page += page_bytes) {
    pages_[device].insert(page);
  }
}

std::set<std::size_t> memory_history::pages(c10::DeviceIndex device) const {
  const std::lock_guard lock(mutex_);
  const auto found = pages_.find(device);
  return found == pages_.end() ? std::set<std::size_t>{} : found->second;
}

void memory_history::forget_pages(c10::DeviceIndex device, const std::vector<std::size_t>& gone) {
  const std::lock_guard lock(mutex_);
  auto& known = pages_[device];
  for (const std::size_t page : gone) {
    known.erase(page);
    if (is_enabled()) keep_locked(spell({trace_entry::SEGMENT_UNMAP, device, page, page_bytes}, nullptr));
  }
}

void memory_history::annotate(c10::DeviceIndex device,
                              const std::vector<std::pair<std::string, std::string>>& metadata) {
  if (!is_enabled()) return;
  annotation_entry entry(device, c10::getApproximateTime());
  for (const auto& [name, value] : metadata) entry.recordUserMetadata(name, value);
  const std::lock_guard lock(mutex_);
  while (annotations_.size() >= max_entries_) annotations_.pop_front();
  annotations_.push_back(std::move(entry));
}

void memory_history::attach_tracker(trace_tracker tracker) {
  const std::lock_guard lock(mutex_);
  trackers_.push_back(std::move(tracker));
}

void memory_history::push_compile_context(std::string text) { compile_contexts().push_back(std::move(text)); }

void memory_history::pop_compile_context() {
  if (!compile_contexts().empty()) compile_contexts().pop_back();
}

void memory_history::set_user_metadata(std::string text) {
  const std::lock_guard lock(mutex_);
  user_metadata_ = std::move(text);
}

std::string memory_history::user_metadata() const {
  const std::lock_guard lock(mutex_);
  return user_metadata_;
}

std::vector<trace_entry> memory_history::entries(c10::DeviceIndex device) {
  const auto to_nanoseconds = converter().makeConverter();
  const std::lock_guard lock(mutex_);
  const auto& ring = entries_[device];
  std::vector<trace_entry> found(ring.begin(), ring.end());
  for (trace_entry& each : found) each.time_.t_ = to_nanoseconds(each.time_.approx_t_) / 1000;
  return found;
}

std::vector<annotation_entry> memory_history::annotations() {
  const auto to_nanoseconds = converter().makeConverter();
  const std::lock_guard lock(mutex_);
  std::vector<annotation_entry> found(annotations_.begin(), annotations_.end());
  for (auto& each : found) each.time_.t_ = to_nanoseconds(each.time_.approx_t_) / 1000;
  return found;
}

}  // namespace cenote::torch
