// Thrust on cenote's memory: its vector, an allocator for it, and policies whose temporary memory is a resource's.
//
//     cenote::device_vector<int> numbers(1000, 7, cenote::thrust_allocator<int>(stream, pool));
//     thrust::sort(cenote::exec_policy_nosync(stream, pool), numbers.begin(), numbers.end());
//
// Optional: no other file of cenote includes this one or needs Thrust. Thrust comes with CCCL; its algorithms need nvcc
// (or clang as a CUDA compiler), this header alone does not.
//
// Threads: as memory_resource. Cost: what Thrust takes from the driver with its own policies, one cudaMalloc and one
// cudaFree an algorithm, is a block of the resource here.
// Source: Thrust of CCCL 3.5.0, compiled with g++ 12 and nvcc 13.5.
#pragma once

#if !__has_include(<thrust/version.h>)
#error "cenote/thrust.hpp needs Thrust: pip install nvidia-cuda-cccl, or add a CUDA toolkit's include/cccl"
#endif

#include <thrust/device_ptr.h>
#include <thrust/device_reference.h>
#include <thrust/device_vector.h>
#include <thrust/system/cuda/execution_policy.h>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "cenote/allocators/polymorphic_allocator.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A polymorphic_allocator with a stream of its own that hands out Thrust's pointers. Memory is of the resource's
/// device, whatever device is current; Thrust's vectors fill it on the device that is.
template <class T>
class thrust_allocator {
 public:
  using value_type = T;
  using pointer = thrust::device_ptr<T>;
  using const_pointer = thrust::device_ptr<const T>;
  using reference = thrust::device_reference<T>;
  using const_reference = thrust::device_reference<const T>;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  template <class Other>
  struct rebind {
    using other = thrust_allocator<Other>;
  };

  /// On the legacy default stream, of the resource that is current now.
  thrust_allocator() = default;

  /// std::invalid_argument if `resource` is null.
  explicit thrust_allocator(stream_ref stream,
                            std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : allocator_(std::move(resource)), stream_(stream) {}

  template <class Other>
  thrust_allocator(const thrust_allocator<Other>& other) noexcept
      : allocator_(other.resource()), stream_(other.kept()) {}

  pointer allocate(size_type count) { return pointer(allocator_.allocate(count, stream())); }
  void deallocate(pointer memory, size_type count) noexcept { allocator_.deallocate(memory.get(), count, stream_); }

  const std::shared_ptr<memory_resource>& resource() const noexcept { return allocator_.resource(); }
  stream_ref stream() const noexcept { return stream_.handle(); }
  const kept_stream& kept() const noexcept { return stream_; }
  int device() const noexcept { return resource()->device(); }

  /// The stream counts: memory of one is not freed in the order of another.
  template <class Other>
  friend bool operator==(const thrust_allocator& a, const thrust_allocator<Other>& b) noexcept {
    return a.resource() == b.resource() && a.kept() == b.kept();
  }

 private:
  polymorphic_allocator<T> allocator_;
  kept_stream stream_{stream_ref{}};
};

/// Thrust's vector in memory of a resource; of the one that is current when it is made, on the legacy default stream,
/// if it is given no allocator. Its elements are constructed and copied by kernels of Thrust's, on the device that is
/// current whenever it is used; a device_uvector needs none.
template <class T>
using device_vector = thrust::device_vector<T, thrust_allocator<T>>;

/// A Thrust policy: algorithms run on `stream`, their temporary memory is the resource's, and they wait for their end.
inline auto exec_policy(stream_ref stream = {},
                        std::shared_ptr<memory_resource> resource = get_current_device_resource()) {
  return thrust::cuda::par(thrust_allocator<char>(stream, std::move(resource))).on(stream.value());
}

/// The same, without the wait wherever the result does not need one.
inline auto exec_policy_nosync(stream_ref stream = {},
                               std::shared_ptr<memory_resource> resource = get_current_device_resource()) {
  return thrust::cuda::par_nosync(thrust_allocator<char>(stream, std::move(resource))).on(stream.value());
}

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
