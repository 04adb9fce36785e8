// A resource of cenote as a value: what every resource and adaptor of RMM's names is.
//
// Copies share the resource, as those of RMM's do; two are equal if they are of the same one. `Properties` are what
// CCCL is told of the memory. A handle may hold the CCCL resource under it, for get_upstream_resource().
#pragma once

#include <concepts>
#include <cstddef>
#include <cuda/memory_resource>
#include <cuda/stream_ref>
#include <memory>
#include <rmm/aligned.hpp>
#include <rmm/detail/translated.hpp>
#include <rmm/resource_ref.hpp>
#include <utility>

#include "cenote/cccl.hpp"

RMM_NAMESPACE_BEGIN
namespace detail {

using any_device_resource = cuda::mr::any_resource<cuda::mr::device_accessible>;

/// A resource of cenote that takes its memory from one of CCCL's, on the current device.
inline std::shared_ptr<cenote::cccl_memory_resource> to_cenote(any_device_resource resource) {
  return translated([&] { return std::make_shared<cenote::cccl_memory_resource>(std::move(resource)); });
}

template <class Resource, class... Properties>
class handle {
 public:
  using default_queries = cuda::mr::properties_list<Properties...>;

  [[nodiscard]] void* allocate(cuda::stream_ref stream, std::size_t bytes,
                               std::size_t alignment = CUDA_ALLOCATION_ALIGNMENT) {
    return allocating([&] { return held_->resource->allocate(stream, bytes, alignment); });
  }
  void deallocate(cuda::stream_ref stream, void* pointer, std::size_t bytes,
                  std::size_t alignment = CUDA_ALLOCATION_ALIGNMENT) noexcept {
    held_->resource->deallocate(stream, pointer, bytes, alignment);
  }
  [[nodiscard]] void* allocate_sync(std::size_t bytes, std::size_t alignment = CUDA_ALLOCATION_ALIGNMENT) {
    return allocating([&] { return held_->resource->allocate_sync(bytes, alignment); });
  }
  void deallocate_sync(void* pointer, std::size_t bytes, std::size_t alignment = CUDA_ALLOCATION_ALIGNMENT) noexcept {
    held_->resource->deallocate_sync(pointer, bytes, alignment);
  }

  friend bool operator==(const handle& a, const handle& b) noexcept { return a.held_ == b.held_; }

  template <class Property>
    requires(std::same_as<Property, Properties> || ...)
  friend constexpr void get_property(const handle&, Property) noexcept {}

  /// The resource of cenote's itself.
  [[nodiscard]] const std::shared_ptr<Resource>& over() const noexcept { return held_->resource; }

 protected:
  struct of_upstream {};

  /// Makes the resource of these arguments.
  template <class... Arguments>
  explicit handle(std::in_place_t, Arguments&&... arguments)
      : held_(allocating([&] {
          return std::make_shared<held>(std::make_shared<Resource>(std::forward<Arguments>(arguments)...));
        })) {}

  /// Makes it over an upstream, which is the first of them.
  template <class... Arguments>
  handle(of_upstream, any_device_resource upstream, Arguments&&... arguments)
      : held_(allocating([&] {
          auto resource = std::make_shared<Resource>(to_cenote(upstream), std::forward<Arguments>(arguments)...);
          return std::make_shared<held>(std::move(resource), std::move(upstream));
        })) {}

  [[nodiscard]] device_async_resource_ref upstream() const noexcept { return held_->upstream; }

 private:
  struct held {
    explicit held(std::shared_ptr<Resource> of)
        : resource(std::move(of)), upstream(cenote::cccl_device_resource(resource)) {}
    held(std::shared_ptr<Resource> of, any_device_resource under)
        : resource(std::move(of)), upstream(std::move(under)) {}

    std::shared_ptr<Resource> resource;
    any_device_resource upstream;
  };

  std::shared_ptr<held> held_;
};

}  // namespace detail

namespace mr::detail {
using rmm::detail::any_device_resource;
using rmm::detail::handle;
using rmm::detail::to_cenote;
}  // namespace mr::detail
RMM_NAMESPACE_END
