// Blocks of one size.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/resources/fixed_size_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class fixed_size_memory_resource
    : public detail::handle<cenote::fixed_size_memory_resource, cuda::mr::device_accessible> {
 public:
  static constexpr std::size_t default_block_size = std::size_t{1} << 20;
  static constexpr std::size_t default_blocks_to_preallocate = 128;

  explicit fixed_size_memory_resource(detail::any_device_resource upstream, std::size_t block_size = default_block_size,
                                      std::size_t blocks_to_preallocate = default_blocks_to_preallocate)
      : handle(of_upstream{}, std::move(upstream), block_size, blocks_to_preallocate) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  [[nodiscard]] std::size_t get_block_size() const noexcept { return over()->block_size(); }
};

static_assert(cuda::mr::resource_with<fixed_size_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
