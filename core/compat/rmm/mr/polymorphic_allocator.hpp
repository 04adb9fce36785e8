// Allocators of a resource, for containers of the standard library's kind.
#pragma once

#include <memory>
#include <rmm/detail/handle.hpp>
#include <rmm/mr/per_device_resource.hpp>

RMM_NAMESPACE_BEGIN
namespace mr {

template <typename T>
class polymorphic_allocator {
 public:
  using value_type = T;

  polymorphic_allocator() = default;
  polymorphic_allocator(detail::any_device_resource resource) : resource_(std::move(resource)) {}
  template <typename U>
  polymorphic_allocator(const polymorphic_allocator<U>& other) noexcept : resource_(other.get_upstream_resource()) {}

  value_type* allocate(std::size_t count, cuda::stream_ref stream) {
    return static_cast<value_type*>(resource_.allocate(stream, count * sizeof(T), rmm::CUDA_ALLOCATION_ALIGNMENT));
  }
  void deallocate(value_type* pointer, std::size_t count, cuda::stream_ref stream) noexcept {
    resource_.deallocate(stream, pointer, count * sizeof(T), rmm::CUDA_ALLOCATION_ALIGNMENT);
  }

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return resource_; }

  template <typename U>
  friend bool operator==(const polymorphic_allocator& a, const polymorphic_allocator<U>& b) {
    return a.get_upstream_resource() == b.get_upstream_resource();
  }

 private:
  mutable detail::any_device_resource resource_{get_current_device_resource_ref()};
};

/// An allocator with a stream.
template <typename Allocator>
class stream_allocator_adaptor {
 public:
  using value_type = typename std::allocator_traits<Allocator>::value_type;

  stream_allocator_adaptor(const Allocator& allocator, cuda::stream_ref stream)
      : allocator_(allocator), stream_(stream) {}
  template <typename Other>
  stream_allocator_adaptor(const stream_allocator_adaptor<Other>& other)
      : stream_allocator_adaptor(other.underlying_allocator(), other.stream()) {}

  template <typename T>
  struct rebind {
    using other = stream_allocator_adaptor<typename std::allocator_traits<Allocator>::template rebind_alloc<T>>;
  };

  value_type* allocate(std::size_t count) { return allocator_.allocate(count, stream_); }
  void deallocate(value_type* pointer, std::size_t count) noexcept { allocator_.deallocate(pointer, count, stream_); }

  [[nodiscard]] cuda::stream_ref stream() const noexcept { return stream_; }
  [[nodiscard]] Allocator underlying_allocator() const noexcept { return allocator_; }

  template <typename Other>
  friend bool operator==(const stream_allocator_adaptor& a, const stream_allocator_adaptor<Other>& b) {
    return a.underlying_allocator() == b.underlying_allocator();
  }

 private:
  Allocator allocator_;
  cuda::stream_ref stream_;
};

}  // namespace mr
RMM_NAMESPACE_END
