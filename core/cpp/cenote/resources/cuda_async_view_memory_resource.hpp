// Memory from a pool of the driver that somebody else owns, such as the device's default pool.
//
// The owner keeps the pool alive. Once it is destroyed, allocating says so (pool_is_gone); what was allocated before
// can still be freed. Which other devices may use the pool's memory is as its owner has it, unless devices are named.
#pragma once

#include <new>
#include <string>

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_pool_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// The pool that a resource views does not exist any more: no memory will ever come from it.
class pool_is_gone : public std::bad_alloc {
 public:
  explicit pool_is_gone(const std::string& reason);
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

class cuda_async_view_memory_resource final : public driver_pool_memory_resource {
 public:
  /// On the current device, or on `device`. std::logic_error if the handle is null.
  explicit cuda_async_view_memory_resource(CUmemPoolHandle_st* pool);
  cuda_async_view_memory_resource(int device, CUmemPoolHandle_st* pool);

  /// Opens the pool, for good, to these devices as well. Throws as check_peers does.
  cuda_async_view_memory_resource(int device, CUmemPoolHandle_st* pool, const peer_devices& peers);

  std::string kind() const override { return "async_view"; }
  memory_state state() const override;

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  memory_pool_ref pool() const noexcept override { return pool_; }

  memory_pool_ref pool_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
