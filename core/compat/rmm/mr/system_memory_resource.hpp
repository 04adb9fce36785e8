// Memory of the system, where the device can use it.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/system_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class system_memory_resource final
    : public detail::handle<cenote::system_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible> {
 public:
  system_memory_resource() : handle(std::in_place) {}

  /// All are equal: memory of one may be freed to another.
  friend bool operator==(const system_memory_resource&, const system_memory_resource&) noexcept { return true; }
};

static_assert(cuda::mr::resource_with<system_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
