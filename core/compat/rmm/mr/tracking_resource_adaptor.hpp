// Knows every allocation that is outstanding.
#pragma once

#include <rmm/detail/handle.hpp>
#include <string>

#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/ground/log.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class tracking_resource_adaptor
    : public detail::handle<cenote::tracking_resource_adaptor, cuda::mr::device_accessible> {
 public:
  tracking_resource_adaptor(detail::any_device_resource upstream, bool capture_stacks = false)
      : handle(of_upstream{}, std::move(upstream), capture_stacks) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  [[nodiscard]] std::size_t get_allocated_bytes() const noexcept { return over()->allocated_bytes(); }
  [[nodiscard]] std::string get_outstanding_allocations_str() const { return over()->outstanding_allocations_str(); }
  void log_outstanding_allocations() const { cenote::log(cenote::log_level::debug, get_outstanding_allocations_str()); }
};

static_assert(cuda::mr::resource_with<tracking_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
