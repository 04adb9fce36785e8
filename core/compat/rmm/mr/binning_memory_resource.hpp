// A resource for each class of sizes.
#pragma once

#include <cstdint>
#include <optional>
#include <rmm/detail/handle.hpp>

#include "cenote/resources/binning_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class binning_memory_resource : public detail::handle<cenote::binning_memory_resource, cuda::mr::device_accessible> {
 public:
  explicit binning_memory_resource(detail::any_device_resource upstream) : handle(of_upstream{}, std::move(upstream)) {}
  binning_memory_resource(detail::any_device_resource upstream, std::int8_t min_size_exponent,
                          std::int8_t max_size_exponent)
      : handle(of_upstream{}, std::move(upstream), int(min_size_exponent), int(max_size_exponent)) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  void add_bin(std::size_t allocation_size, std::optional<device_async_resource_ref> bin_resource = std::nullopt) {
    over()->add_bin(allocation_size,
                    bin_resource.has_value() ? detail::to_cenote(detail::any_device_resource(*bin_resource)) : nullptr);
  }
};

static_assert(cuda::mr::resource_with<binning_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
