// The full allocator's history and snapshots.
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "full_allocator.hpp"

namespace cenote::torch {

bool full_allocator::isHistoryEnabled() { return history_.is_enabled(); }

void full_allocator::recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when,
                                   bool clear, const std::vector<std::string>& skipped) {
  history_.configure({enabled, recorder, max_entries, when, clear, skipped});
  if (enabled) {
    for (int device = 0; device < std::max(1, device_count_.load()); ++device) {
      for (const auto& [address, block] : of(static_cast<c10::DeviceIndex>(device)).blocks.all()) {
        if (block.pool == nullptr) history_.know_pages(block.device, address, block.bytes);
      }
    }
  }
  if (!has_native()) return;
  [&](auto& native) {
    if constexpr (requires { native.recordHistory(enabled, recorder, max_entries, when, clear, skipped); }) {
      native.recordHistory(enabled, recorder, max_entries, when, clear, skipped);
    } else {
      native.recordHistory(enabled, recorder, max_entries, when, clear);
    }
  }(*native_);
}

void full_allocator::recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when,
                                   bool clear) {
  recordHistory(enabled, recorder, max_entries, when, clear, {});
}

void full_allocator::recordAnnotation(const std::vector<std::pair<std::string, std::string>>& metadata) {
  if (history_.is_enabled()) history_.annotate(c10::cuda::current_device(), metadata);
}

void full_allocator::pushCompileContext(std::string& text) { memory_history::push_compile_context(text); }
void full_allocator::popCompileContext() { memory_history::pop_compile_context(); }
void full_allocator::setUserMetadata(const std::string& text) { history_.set_user_metadata(text); }
std::string full_allocator::getUserMetadata() { return history_.user_metadata(); }

context full_allocator::getContextForPointer(const void* pointer) {
  context found;
  visit(pointer, [&](const live_block& block) { found = block.stack; });
  return found;
}

void full_allocator::attachOutOfMemoryObserver(OutOfMemoryObserver observer) {
  const std::lock_guard lock(observers_mutex_);
  observers_.push_back(observer);
  native_->attachOutOfMemoryObserver(std::move(observer));
}

/// Nothing is rejected before it was tried: there is nobody to be told.
void full_allocator::attachOomRejectionObserver(
    std::function<void(std::int64_t, std::size_t, std::size_t, std::size_t)>) {}

void full_allocator::attachAllocatorTraceTracker(trace_tracker tracker) {
  history_.attach_tracker(tracker);
  native_->attachAllocatorTraceTracker(std::move(tracker));
}

SnapshotInfo full_allocator::snapshot(mempool_id id, bool include_traces) {
  SnapshotInfo result;
  if (has_native()) {
    [&](auto& native) {
      if constexpr (requires { native.snapshot(id, include_traces); }) {
        result = native.snapshot(id, include_traces);
      } else {
        result = native.snapshot(id);
      }
    }(*native_);
  }
  auto& config = result.config_metadata;
  if (!has_native()) {
    config.max_split_size = std::numeric_limits<std::size_t>::max();
    config.pinned_num_register_threads = 1;
  }
  const bool is_of_all = id == mempool_id{0, 0};
  const int devices = std::max(1, device_count_.load());
  if (result.device_traces.size() < static_cast<std::size_t>(devices)) {
    result.device_traces.resize(static_cast<std::size_t>(devices));
  }
  for (int index = 0; index < devices; ++index) {
    const auto device = static_cast<c10::DeviceIndex>(index);
    auto blocks = of(device).blocks.all();
    for (auto& each : recorded_.waiting(device)) blocks.push_back(std::move(each));
    std::sort(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    pools_.for_each(device, [&](mempool_id its, const private_pool& pool) {
      if (!is_of_all && its != id) return;
      for (auto& segment : lay_out(pool, its, device, blocks)) result.segments.push_back(std::move(segment));
    });
    if (is_of_all) {
      device_state& its = of(device);
      const std::size_t reserved = its.is_used ? look_at_reserved(device) : 0;
      const pool_totals pools = pools_.totals(device);
      blocks.erase(std::remove_if(blocks.begin(), blocks.end(),
                                  [](const placed_block& each) { return each.second.pool != nullptr; }),
                   blocks.end());
      std::optional<std::set<std::size_t>> pages;
      if (history_.is_enabled()) pages = history_.pages(device);
      const std::size_t in_pools = pools.bytes[0] + pools.bytes[1] + pools_.trim_shared(device, false);
      main_layout layout = lay_out(std::move(blocks), reserved - std::min(reserved, in_pools), pages);
      if (!layout.unmapped_pages.empty()) history_.forget_pages(device, layout.unmapped_pages);
      for (auto& segment : layout.segments) {
        segment.device = device;
        result.segments.push_back(std::move(segment));
      }
    }
    if (include_traces) {
      auto& trace = result.device_traces[static_cast<std::size_t>(index)];
      const auto entries = history_.entries(device);
      trace.insert(trace.end(), entries.begin(), entries.end());
      std::stable_sort(trace.begin(), trace.end(),
                       [](const trace_entry& a, const trace_entry& b) { return a.time_.t_ < b.time_.t_; });
    }
  }
  if (include_traces) {
    for (auto& each : history_.annotations()) result.external_annotations.push_back(std::move(each));
  }
  return result;
}

SnapshotInfo full_allocator::snapshot(mempool_id id) { return snapshot(id, true); }
SnapshotInfo full_allocator::snapshot() { return snapshot({0, 0}, true); }

void full_allocator::annotateMemory(const void* pointer, const std::string& text) {
#if CENOTE_TORCH_VERSION >= 21400
  live_block found;
  if (!visit(pointer, [&](const live_block& block) { found = block; })) return;
  (void)text;
  history_.record({trace_entry::ANNOTATE, found.device, reinterpret_cast<std::size_t>(pointer), found.bytes}, nullptr);
#else
  (void)pointer;
  (void)text;
#endif
}

}  // namespace cenote::torch
