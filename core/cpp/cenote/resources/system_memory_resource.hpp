// Memory of the host's own heap, used by the device in place: for machines where it can use any memory of the host
// (pageable memory access: Grace Hopper, or Linux with heterogeneous memory management).
//
// Freeing waits for the work of the stream on the host; put a pool over it. A pointer that is not in use here is
// reported and left alone: the heap would end the process.
//
// Threads: `mutex_` guards the pointers in use; nothing is called under it.
#pragma once

#include <unordered_set>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class system_memory_resource final : public driver_memory_resource {
 public:
  /// On the current device, or on `device`. std::runtime_error if it cannot use pageable memory.
  system_memory_resource();
  explicit system_memory_resource(int device);

  std::string kind() const override { return "system"; }
  bool is_host_accessible() const noexcept override { return true; }
  bool is_stream_ordered() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;

  object_mutex mutex_;
  std::unordered_set<void*> in_use_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
