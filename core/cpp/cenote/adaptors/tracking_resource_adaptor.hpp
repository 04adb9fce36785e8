// Remembers what was allocated and not yet freed, and where from: for finding leaks.
//
// A free of another size than was allocated is reported, and the size that was allocated is counted and freed. A free
// of a pointer that is not outstanding is reported and passed on. What is outstanding when the adaptor ends is reported
// too. After a hundred reports of frees an adaptor is silent.
//
// Threads: `mutex_` guards the bookkeeping; the upstream and the interpreter are not called under it.
// Cost: one look-up by address, about 100 bytes for each outstanding allocation; with stacks some microseconds and
// kilobytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cenote/ground/call_stack.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

struct outstanding_allocation {
  void* pointer = nullptr;
  std::size_t bytes = 0;                    ///< as asked for
  stream_ref stream;                        ///< that it was allocated on; may be gone
  long thread = 0;                          ///< that allocated it, by the kernel's number
  std::uint64_t number = 0;                 ///< in the order of allocation
  std::shared_ptr<const call_stack> stack;  ///< null unless stacks are captured
};

class tracking_resource_adaptor final : public resource_adaptor {
 public:
  /// `running` describes the frames of an interpreter, if one calls this library.
  explicit tracking_resource_adaptor(std::shared_ptr<memory_resource> upstream, bool capture_stacks = false,
                                     interpreter running = {});
  ~tracking_resource_adaptor() override;

  std::size_t allocated_bytes() const;

  /// In the order of allocation.
  std::vector<outstanding_allocation> outstanding_allocations() const;

  /// One line for each outstanding allocation, and its stack; empty if there is none.
  std::string outstanding_allocations_str() const;

  /// The outstanding allocations by where they come from, the most bytes first; empty if there is none.
  std::string leak_report() const;

  bool captures_stacks() const noexcept { return capture_stacks_; }

  std::string kind() const override { return "tracking"; }
  std::string specification() const override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void insert(outstanding_allocation allocation);
  void report_bad_free(const void* pointer, std::size_t bytes,
                       const std::optional<outstanding_allocation>& known) noexcept;

  const bool capture_stacks_;
  const interpreter running_;
  mutable object_mutex mutex_;
  std::unordered_map<void*, outstanding_allocation> outstanding_;
  std::size_t allocated_bytes_ = 0;
  std::uint64_t allocations_ = 0;
  std::atomic<int> reports_{0};  // of bad frees
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
