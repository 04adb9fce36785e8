// Brings managed memory to the device as it is allocated.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/adaptors/prefetch_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class prefetch_resource_adaptor
    : public detail::handle<cenote::prefetch_resource_adaptor, cuda::mr::device_accessible> {
 public:
  explicit prefetch_resource_adaptor(detail::any_device_resource upstream)
      : handle(of_upstream{}, std::move(upstream)) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
};

static_assert(cuda::mr::resource_with<prefetch_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
