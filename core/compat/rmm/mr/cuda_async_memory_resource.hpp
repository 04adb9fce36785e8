// A pool of the driver's.
#pragma once

#include <cstdint>
#include <optional>
#include <rmm/detail/handle.hpp>

#include "cenote/resources/cuda_async_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class cuda_async_memory_resource final
    : public detail::handle<cenote::cuda_async_memory_resource, cuda::mr::device_accessible> {
 public:
  enum class allocation_handle_type : std::int32_t {
    none = cudaMemHandleTypeNone,
    posix_file_descriptor = cudaMemHandleTypePosixFileDescriptor,
    win32 = cudaMemHandleTypeWin32,
    win32_kmt = cudaMemHandleTypeWin32Kmt,
    fabric = 0x8
  };

  cuda_async_memory_resource(std::optional<std::size_t> initial_pool_size = {},
                             std::optional<std::size_t> release_threshold = {},
                             std::optional<allocation_handle_type> export_handle_type = {})
      : handle(std::in_place, wanted(initial_pool_size, release_threshold, export_handle_type)) {}

  [[nodiscard]] cudaMemPool_t pool_handle() const noexcept { return over()->pool_handle(); }

 private:
  static cenote::cuda_async_memory_resource::options wanted(std::optional<std::size_t> initial,
                                                            std::optional<std::size_t> threshold,
                                                            std::optional<allocation_handle_type> handle_type) {
    cenote::cuda_async_memory_resource::options options;
    options.initial_pool_size = initial.value_or(0);
    if (threshold.has_value()) options.release_threshold = *threshold;
    const allocation_handle_type type = handle_type.value_or(allocation_handle_type::none);
    options.handles.posix_file_descriptor = type == allocation_handle_type::posix_file_descriptor;
    options.handles.fabric = type == allocation_handle_type::fabric;
    return options;
  }
};

static_assert(cuda::mr::resource_with<cuda_async_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
