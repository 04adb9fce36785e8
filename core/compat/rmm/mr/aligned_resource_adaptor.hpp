// Raises the alignment of large blocks.
#pragma once

#include <rmm/detail/handle.hpp>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class aligned_resource_adaptor : public detail::handle<cenote::aligned_resource_adaptor, cuda::mr::device_accessible> {
 public:
  static constexpr std::size_t default_alignment_threshold = 0;

  explicit aligned_resource_adaptor(detail::any_device_resource upstream,
                                    std::size_t alignment = rmm::CUDA_ALLOCATION_ALIGNMENT,
                                    std::size_t alignment_threshold = default_alignment_threshold)
      : handle(of_upstream{}, std::move(upstream), alignment, alignment_threshold) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
};

static_assert(cuda::mr::resource_with<aligned_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
