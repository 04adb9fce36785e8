// cenote's pool under RMM's name.
#pragma once

#include <optional>
#include <rmm/detail/handle.hpp>

#include "cenote/resources/pool_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class pool_memory_resource : public detail::handle<cenote::pool_memory_resource, cuda::mr::device_accessible> {
 public:
  explicit pool_memory_resource(detail::any_device_resource upstream, std::size_t initial_pool_size,
                                std::optional<std::size_t> maximum_pool_size = std::nullopt)
      : handle(of_upstream{}, std::move(upstream), checked(initial_pool_size), checked(maximum_pool_size)) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  [[nodiscard]] std::size_t pool_size() const noexcept { return over()->pool_size(); }

 private:
  /// RMM wants multiples of 256.
  template <class Size>
  static std::optional<std::size_t> checked(Size size) {
    const std::optional<std::size_t> given(size);
    RMM_EXPECTS(!given.has_value() || rmm::is_aligned(*given, rmm::CUDA_ALLOCATION_ALIGNMENT),
                "a pool's size must be a multiple of 256 bytes");
    return given;
  }
};

static_assert(cuda::mr::resource_with<pool_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
