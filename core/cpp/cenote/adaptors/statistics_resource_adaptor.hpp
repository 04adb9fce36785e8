// Counts what passes through: bytes and allocations, current, peak and total.
//
// Counters form a stack. push_counters() starts fresh ones on top, which count from zero; pop_counters() takes them off
// and folds them into those below, as if these had counted all along.
//
// Threads: `mutex_` guards the stack; nothing is called under it.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "cenote/memory_resource.hpp"

namespace cenote {

/// Signed: what was allocated before the counter started and is freed under it counts below zero.
struct counter {
  std::int64_t current = 0;
  std::int64_t peak = 0;
  std::int64_t total = 0;

  void add(std::int64_t amount) noexcept;
  void subtract(std::int64_t amount) noexcept;
  /// Takes in what a later counter counted on top of this one.
  void absorb(const counter& later) noexcept;
};

struct allocation_counters {
  counter bytes;
  counter count;
};

class statistics_resource_adaptor final : public resource_adaptor {
 public:
  explicit statistics_resource_adaptor(std::shared_ptr<memory_resource> upstream)
      : resource_adaptor(std::move(upstream), "statistics"), stack_(1) {}

  /// The counters on top of the stack.
  allocation_counters counters() const;

  /// Starts fresh counters; returns those that were on top.
  allocation_counters push_counters();

  /// Ends the counters on top and returns them; std::out_of_range if they are the last.
  allocation_counters pop_counters();

  std::string kind() const override { return "statistics"; }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept override;

  mutable std::mutex mutex_;
  std::vector<allocation_counters> stack_;
};

}  // namespace cenote
