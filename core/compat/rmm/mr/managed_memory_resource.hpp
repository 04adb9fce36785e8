// Managed memory.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/managed_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class managed_memory_resource final
    : public detail::handle<cenote::managed_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible> {
 public:
  managed_memory_resource() : handle(std::in_place) {}

  /// All are equal: memory of one may be freed to another.
  friend bool operator==(const managed_memory_resource&, const managed_memory_resource&) noexcept { return true; }
};

static_assert(cuda::mr::resource_with<managed_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
