// One call at a time.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class thread_safe_resource_adaptor
    : public detail::handle<cenote::thread_safe_resource_adaptor, cuda::mr::device_accessible> {
 public:
  explicit thread_safe_resource_adaptor(detail::any_device_resource upstream)
      : handle(of_upstream{}, std::move(upstream)) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
};

static_assert(cuda::mr::resource_with<thread_safe_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
