// The driver's pool of managed memory.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/cuda_async_managed_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class cuda_async_managed_memory_resource final
    : public detail::handle<cenote::cuda_async_managed_memory_resource, cuda::mr::device_accessible,
                            cuda::mr::host_accessible> {
 public:
  cuda_async_managed_memory_resource() : handle(std::in_place) {}

  [[nodiscard]] cudaMemPool_t pool_handle() const noexcept { return over()->pool_handle(); }
};

static_assert(cuda::mr::resource_with<cuda_async_managed_memory_resource, cuda::mr::device_accessible,
                                      cuda::mr::host_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
