// A pool of the driver's that somebody else owns.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/cuda_async_view_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class cuda_async_view_memory_resource final
    : public detail::handle<cenote::cuda_async_view_memory_resource, cuda::mr::device_accessible> {
 public:
  cuda_async_view_memory_resource(cudaMemPool_t pool) : handle(std::in_place, pool), pool_(pool) {}

  [[nodiscard]] cudaMemPool_t pool_handle() const noexcept { return pool_; }

  /// Those of the same pool.
  friend bool operator==(const cuda_async_view_memory_resource& a, const cuda_async_view_memory_resource& b) noexcept {
    return a.pool_ == b.pool_;
  }

 private:
  cudaMemPool_t pool_;
};

static_assert(cuda::mr::resource_with<cuda_async_view_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
