// Counts what passes through: bytes and allocations, current, peak and total.
//
//                  thread 1     thread 2     thread 3
//                  scope
//                  scope        scope
//     base counters: everything, of all threads
//
//   1. The base counters count what every thread does, always.
//   2. push_counters() starts a scope of the calling thread, which counts from zero what that thread does.
//   3. pop_counters() ends the thread's last scope and folds it into the one below, as if that had counted all along.
//      Below the first are the base counters, which have.
//   4. A thread sees its own last scope; one that has none sees the base counters.
//
// A thread that ends with scopes leaves them behind, a few hundred bytes; nobody sees them again.
//
// Threads: `scopes_mutex_` guards the scopes; nothing is called under it. The base counters are quotas whose limit is
// the peak (structures/leased_quota.hpp): each thread counts by itself while it stays below the peak of all together,
// and only who goes beyond looks at what the others have. Figures are exact when nobody allocates or frees. Of calls of
// several threads that overlap in time, a peak may take one for earlier or later than it was.
// Cost: 5.2 ns a pair, 2.3 of them the passing on, without a locked instruction (16.8 with a lock of all threads);
// where the peak rises, two spin locks and O(threads); a mutex and a look-up by thread while there are scopes. 1.6 KiB,
// and 128 bytes for each thread. Source of the figures: as in leased_quota.hpp, over a pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/structures/leased_quota.hpp"

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

  void allocated(std::size_t size) noexcept;
  void freed(std::size_t size) noexcept;
  void absorb(const allocation_counters& later) noexcept;
};

class statistics_resource_adaptor final : public resource_adaptor {
 public:
  explicit statistics_resource_adaptor(std::shared_ptr<memory_resource> upstream)
      : resource_adaptor(std::move(upstream), "statistics") {}

  /// Of the calling thread's last scope, or the base counters.
  allocation_counters counters() const;

  /// Starts a scope of the calling thread; returns what counters() said until now.
  allocation_counters push_counters();

  /// Ends the calling thread's last scope and returns its counters; std::out_of_range if it has none.
  allocation_counters pop_counters();

  std::string kind() const override { return "statistics"; }

 private:
  using scopes = std::vector<allocation_counters>;

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  inline void* counted(void* pointer, std::size_t bytes) noexcept;
  void count_in_my_scope(void (allocation_counters::*count)(std::size_t) noexcept, std::size_t bytes) noexcept;

  mutable leased_quota bytes_{leased_quota::limit::rising, 0};
  mutable leased_quota count_{leased_quota::limit::rising, 0};
  mutable object_mutex scopes_mutex_;
  std::unordered_map<std::uint64_t, scopes> scopes_;  // by thread; each has at least one
  std::atomic<bool> has_scopes_{false};
};

}  // namespace cenote
