// Managed memory (cuMemAllocManaged): one address for host and device, pages move to whoever touches them.
//
// May exceed the device's memory. Freeing waits for the device to finish all its work.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class managed_memory_resource final : public driver_memory_resource {
 public:
  /// On the current device, or on `device`.
  managed_memory_resource();
  explicit managed_memory_resource(int device);

  std::string kind() const override { return "managed"; }
  bool is_host_accessible() const noexcept override { return true; }
  bool is_stream_ordered() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
