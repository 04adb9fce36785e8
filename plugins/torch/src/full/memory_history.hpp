// What torch.cuda.memory._record_memory_history records: events with their stacks, annotations, metadata.
//
//   1. A stack is gathered before any lock is taken: PyTorch's recorder may need the GIL.
//   2. Events of a device lie in a ring of the size that was asked for. Those of an action that is to be skipped are
//      not kept.
//   3. In a snapshot each block has to lie in a segment that was there at the time. So while events are recorded, the
//      pages of 2 MiB that blocks have touched are kept, and new ones are recorded as mapped.
//   4. Trackers, which NCCL's registration attaches, are told of the segments of private pools only: those addresses
//      stay where they are.
//
// Threads: any; `mutex_` guards what is kept. Trackers are called under it, as PyTorch's contract says.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "torch_types.hpp"

namespace cenote::torch {

struct traced {
  trace_entry::Action action;
  c10::DeviceIndex device = 0;
  std::size_t address = 0;
  std::size_t bytes = 0;
  void* stream = nullptr;
  mempool_id pool = {0, 0};
};

class memory_history {
 public:
  struct settings {
    bool enabled = false;
    context_recorder recorder = nullptr;
    std::size_t max_entries = 1;
    record_level when = record_level::NEVER;
    bool clear = false;
    std::vector<std::string> skipped;
  };

  void configure(const settings& wanted);
  bool is_enabled() const noexcept { return enabled_.load(std::memory_order_relaxed); }

  /// The calling thread's stack, where stacks of that level are wanted.
  context gather(record_level level) const {
    if (level_.load(std::memory_order_relaxed) < level) return nullptr;
    const auto recorder = recorder_.load(std::memory_order_relaxed);
    return recorder == nullptr ? nullptr : recorder();
  }

  void record(const traced& what, const context& stack = nullptr) {
    if (is_enabled()) record_enabled(what, stack);
  }

  /// A segment of a private pool came or went: recorded, and told to the trackers.
  void record_segment(const traced& what, const context& stack);

  /// Records the pages that an allocated block is the first to touch, and the allocation.
  void record_allocation(const traced& what, const context& stack);

  /// Makes pages known without recording that they came.
  void know_pages(c10::DeviceIndex device, std::size_t address, std::size_t bytes);
  std::set<std::size_t> pages(c10::DeviceIndex device) const;
  void forget_pages(c10::DeviceIndex device, const std::vector<std::size_t>& gone);

  void annotate(c10::DeviceIndex device, const std::vector<std::pair<std::string, std::string>>& metadata);
  void attach_tracker(trace_tracker tracker);

  static void push_compile_context(std::string text);
  static void pop_compile_context();
  void set_user_metadata(std::string text);
  std::string user_metadata() const;

  /// The events of a device, oldest first, with their times in microseconds since the epoch.
  std::vector<trace_entry> entries(c10::DeviceIndex device);
  std::vector<annotation_entry> annotations();

 private:
  trace_entry spell(const traced& what, const context& stack) const;
  void record_enabled(const traced& what, const context& stack);
  void keep_locked(trace_entry entry);

  std::atomic<bool> enabled_{false};
  std::atomic<record_level> level_{record_level::NEVER};
  std::atomic<context_recorder> recorder_{nullptr};

  mutable std::mutex mutex_;  // guards all below
  std::size_t max_entries_ = 1;
  std::set<std::string> skipped_;
  std::map<c10::DeviceIndex, std::deque<trace_entry>> entries_;
  std::map<c10::DeviceIndex, std::set<std::size_t>> pages_;
  std::deque<annotation_entry> annotations_;
  std::vector<trace_tracker> trackers_;
  std::string user_metadata_;
};

}  // namespace cenote::torch
