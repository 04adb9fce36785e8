// Memory of the system that leaves the device some room.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/sam_headroom_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class sam_headroom_memory_resource final
    : public detail::handle<cenote::sam_headroom_memory_resource, cuda::mr::device_accessible,
                            cuda::mr::host_accessible> {
 public:
  explicit sam_headroom_memory_resource(std::size_t headroom) : handle(std::in_place, headroom) {}
};

static_assert(
    cuda::mr::resource_with<sam_headroom_memory_resource, cuda::mr::device_accessible, cuda::mr::host_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
