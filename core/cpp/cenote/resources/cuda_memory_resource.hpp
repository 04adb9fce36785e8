// The driver's plain device memory (cuMemAlloc, cuMemFree): the resource that everything starts from.
//
// Usable on every stream as soon as allocate returns. Freeing waits for the device to finish all its work: 59 µs a pair
// when idle, as long as the kernels take when not (driver 580, H100). Put a pool over it.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class cuda_memory_resource final : public driver_memory_resource {
 public:
  /// On the current device, or on `device`.
  cuda_memory_resource();
  explicit cuda_memory_resource(int device);

  std::string kind() const override { return "cuda"; }
  bool is_host_accessible() const noexcept override { return false; }
  bool is_stream_ordered() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
