// Counts what passes through: bytes and allocations, current, peak and total.
//
//                  thread 1     thread 2     thread 3
//                  scope
//                  scope        scope
//     base counters: everything, of all threads
//
//   1. The base counters count what every thread does, always.
//   2. A scope counts from zero what the part of the program does that is in it (adaptors/counting_scope.hpp). An
//      allocation counts in every scope that its thread, or the task that runs on it, is in.
//   3. push_counters() starts a scope of the calling thread, pop_counters() ends the last one.
//   4. A thread sees its own last scope; one that has none sees the base counters.
//
// The scopes that a thread has not popped end with it.
//
// Threads: the books' mutex guards the scopes; nothing is called under it. The base counters are quotas whose limit is
// the peak (structures/leased_quota.hpp): each thread counts by itself while it stays below the peak of all together,
// and only who goes beyond looks at what the others have. Figures are exact when nobody allocates or frees. Of calls of
// several threads that overlap in time, a peak may take one for earlier or later than it was.
// Cost: 5.2 ns a pair, 2.3 of them the passing on, without a locked instruction (16.8 with a lock of all threads);
// where the peak rises, two spin locks and O(threads); a mutex and O(scopes of the thread) while there are scopes. 1.6
// KiB, and 128 bytes for each thread. Source of the figures: as in leased_quota.hpp, over a pool.
#pragma once

#include <memory>

#include "cenote/adaptors/counting_scope.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/resource_adaptor.hpp"
#include "cenote/structures/leased_quota.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class statistics_resource_adaptor final : public resource_adaptor {
 public:
  explicit statistics_resource_adaptor(std::shared_ptr<memory_resource> upstream)
      : resource_adaptor(std::move(upstream), "statistics") {}

  /// Returns the counters of the innermost scope of the calling thread or its task, or the base counters.
  allocation_counters counters() const;

  /// Starts a scope of the calling thread; returns what counters() said until now.
  allocation_counters push_counters();

  /// Ends the calling thread's last scope and returns its counters; std::out_of_range if it has none.
  allocation_counters pop_counters();

  /// A new scope, which counts for those who have it in their list.
  std::shared_ptr<counting_scope> open_scope() const { return std::make_shared<counting_scope>(books_); }

  /// Whether it is a scope of this adaptor, and open.
  bool owns(const counting_scope& scope) const noexcept { return scope.is_open_in(*books_); }

  std::string kind() const override { return "statistics"; }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  inline void* counted(void* pointer, std::size_t bytes) noexcept;
  void correct(std::size_t said, std::size_t freed) noexcept;
  void count_in_scopes(void (allocation_counters::*count)(std::size_t) noexcept, std::size_t bytes) noexcept;
  bool has_scopes() const noexcept { return books_->open.load(std::memory_order_relaxed) != 0; }

  mutable leased_quota bytes_{leased_quota::limit::rising, 0};
  mutable leased_quota count_{leased_quota::limit::rising, 0};
  const std::shared_ptr<scope_books> books_ = std::make_shared<scope_books>();
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
