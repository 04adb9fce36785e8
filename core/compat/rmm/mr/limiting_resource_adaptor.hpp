// Refuses what goes over a limit.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/adaptors/limiting_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class limiting_resource_adaptor
    : public detail::handle<cenote::limiting_resource_adaptor, cuda::mr::device_accessible> {
 public:
  limiting_resource_adaptor(detail::any_device_resource upstream, std::size_t allocation_limit,
                            std::size_t alignment = rmm::CUDA_ALLOCATION_ALIGNMENT)
      : handle(of_upstream{}, std::move(upstream), allocation_limit, alignment) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  [[nodiscard]] std::size_t get_allocated_bytes() const { return over()->allocated_bytes(); }
  [[nodiscard]] std::size_t get_allocation_limit() const { return over()->allocation_limit(); }
};

static_assert(cuda::mr::resource_with<limiting_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
