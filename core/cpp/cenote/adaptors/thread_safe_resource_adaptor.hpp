// Lets one thread at a time into its upstream: for a resource of the program's own that has no lock.
//
// Every resource of cenote is safe without it.
//
// Threads: `mutex_` is held during each call of the upstream. A thread that is inside may come in again: where the
// upstream is a function of an interpreter's, its garbage collector may free a block of this very stack at any moment.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class thread_safe_resource_adaptor final : public resource_adaptor {
 public:
  explicit thread_safe_resource_adaptor(std::shared_ptr<memory_resource> upstream)
      : resource_adaptor(std::move(upstream), "thread_safe") {}

  std::string kind() const override { return "thread_safe"; }
  memory_state state() const override;
  /// Waits outside the lock.
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override;
  void check() const override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  mutable object_recursive_mutex mutex_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
