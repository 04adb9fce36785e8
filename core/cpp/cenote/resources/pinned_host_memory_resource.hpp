// Page-locked host memory (cuMemHostAlloc, portable): the host and every device can use it; copies from it run
// alongside kernels.
//
// Allocating is slow (27 ms for 64 MiB, driver 580, H100): put a pool over it.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class pinned_host_memory_resource final : public driver_memory_resource {
 public:
  /// On the current device, or on `device`.
  pinned_host_memory_resource();
  explicit pinned_host_memory_resource(int device);

  std::string kind() const override { return "pinned"; }
  bool is_host_accessible() const noexcept override { return true; }
  bool is_stream_ordered() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
