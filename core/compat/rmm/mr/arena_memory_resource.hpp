// Arenas under RMM's name.
#pragma once

#include <optional>
#include <rmm/detail/handle.hpp>

#include "cenote/resources/arena_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class arena_memory_resource : public detail::handle<cenote::arena_memory_resource, cuda::mr::device_accessible> {
 public:
  explicit arena_memory_resource(detail::any_device_resource upstream,
                                 std::optional<std::size_t> arena_size = std::nullopt, bool dump_log_on_failure = false)
      : handle(of_upstream{}, std::move(upstream), arena_size, dump_log_on_failure) {}
};

static_assert(cuda::mr::resource_with<arena_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
