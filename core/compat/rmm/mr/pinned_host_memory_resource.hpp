// Pinned memory of the host.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/pinned_host_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class pinned_host_memory_resource final
    : public detail::handle<cenote::pinned_host_memory_resource, cuda::mr::device_accessible,
                            cuda::mr::host_accessible> {
 public:
  pinned_host_memory_resource() : handle(std::in_place) {}

  /// All are equal: memory of one may be freed to another.
  friend bool operator==(const pinned_host_memory_resource&, const pinned_host_memory_resource&) noexcept {
    return true;
  }
};

static_assert(
    cuda::mr::resource_with<pinned_host_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
