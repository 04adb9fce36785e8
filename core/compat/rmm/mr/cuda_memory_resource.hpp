// The driver's plain memory.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/cuda_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class cuda_memory_resource final : public detail::handle<cenote::cuda_memory_resource, cuda::mr::device_accessible> {
 public:
  cuda_memory_resource() : handle(std::in_place) {}

  /// All are equal: memory of one may be freed to another.
  friend bool operator==(const cuda_memory_resource&, const cuda_memory_resource&) noexcept { return true; }
};

static_assert(cuda::mr::resource_with<cuda_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
