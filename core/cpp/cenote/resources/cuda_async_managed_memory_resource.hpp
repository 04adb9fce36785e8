// Managed memory from the driver's own pool of it (CUDA 13): stream-ordered, and one address for host and device.
//
// The pool is the device's default one, shared with everybody in the process who uses it. While there is such a
// resource, it keeps what is freed to it over a synchronisation (managed_pool_use).
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_pool_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class cuda_async_managed_memory_resource final : public driver_pool_memory_resource {
 public:
  /// On the current device, or on `device`. std::runtime_error where there is no such pool (default_managed_pool).
  cuda_async_managed_memory_resource();
  explicit cuda_async_managed_memory_resource(int device);

  std::string kind() const override { return "async_managed"; }
  bool is_host_accessible() const noexcept override { return true; }

 private:
  memory_pool_ref pool() const noexcept override { return pool_.view(); }

  managed_pool_use pool_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
