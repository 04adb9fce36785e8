// An allocator for Thrust.
#pragma once

#include <thrust/device_malloc_allocator.h>
#include <thrust/device_ptr.h>
#include <thrust/memory.h>

#include <rmm/detail/handle.hpp>
#include <rmm/mr/per_device_resource.hpp>

RMM_NAMESPACE_BEGIN
namespace mr {

template <typename T>
class thrust_allocator : public thrust::device_malloc_allocator<T> {
 public:
  using Base = thrust::device_malloc_allocator<T>;
  using pointer = typename Base::pointer;
  using size_type = typename Base::size_type;

  template <typename U>
  struct rebind {
    using other = thrust_allocator<U>;
  };

  thrust_allocator() {}
  explicit thrust_allocator(cuda::stream_ref stream) : stream_(stream) {}
  thrust_allocator(cuda::stream_ref stream, detail::any_device_resource resource)
      : stream_(stream), resource_(std::move(resource)) {}
  template <typename U>
  thrust_allocator(const thrust_allocator<U>& other)
      : stream_(other.stream()), resource_(other.get_upstream_resource()), device_(other.device()) {}

  pointer allocate(size_type count) {
    const cuda_set_device_raii current(device_);
    void* const memory = resource_.allocate(stream_, count * sizeof(T), rmm::CUDA_ALLOCATION_ALIGNMENT);
    return thrust::device_pointer_cast(static_cast<T*>(memory));
  }
  void deallocate(pointer memory, size_type count) noexcept {
    const cuda_set_device_raii current(device_);
    resource_.deallocate(stream_, thrust::raw_pointer_cast(memory), count * sizeof(T), rmm::CUDA_ALLOCATION_ALIGNMENT);
  }

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return resource_; }
  [[nodiscard]] cuda::stream_ref stream() const noexcept { return stream_; }
  [[nodiscard]] cuda_device_id device() const noexcept { return device_; }

  RMM_CONSTEXPR_FRIEND void get_property(const thrust_allocator&, cuda::mr::device_accessible) noexcept {}

 private:
  cuda::stream_ref stream_{cudaStream_t{nullptr}};
  mutable detail::any_device_resource resource_{get_current_device_resource_ref()};
  cuda_device_id device_;
};

}  // namespace mr
RMM_NAMESPACE_END
