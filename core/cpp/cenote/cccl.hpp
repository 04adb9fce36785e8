// cenote and NVIDIA's CCCL (libcu++): a resource of either library serves where the other one's is wanted.
//
//     cccl_resource<properties…>        a handle: a cenote resource, for whatever takes a cuda::mr resource
//     cccl_memory_resource              a cenote resource that takes its memory from a cuda::mr resource
//     stream_ref(cuda::stream_ref)      implicit, as every stream_ref is; to_cccl(stream_ref) for the other way
//
// Optional: no other file of cenote includes this one or needs CCCL. Nothing of the CUDA runtime is called either, only
// its headers are read. CCCL's own cuda_error names cudaGetErrorString: before 3.5 a program needs it to link.
//
// Threads: as memory_resource. A CCCL resource that serves as an upstream must allow calls from any thread too.
// Cost: a handle is a shared_ptr; a call through it is one more call, a call into CCCL's any_resource an indirect one.
// Source: CCCL 3.2.0, 3.3.3 and 3.5.0, tried with g++ 12; 3.1 has no any_resource, and 3.0 other concepts.
#pragma once

#if !__has_include(<cuda/version>)
#error "cenote/cccl.hpp needs CCCL's headers: pip install nvidia-cuda-cccl, or add a CUDA toolkit's include/cccl"
#endif
#include <cuda/version>
#if CCCL_VERSION < 3002000
#error "cenote/cccl.hpp needs CCCL 3.2 or newer: pip install 'nvidia-cuda-cccl>=13.2', or a CUDA toolkit from 13.2 on"
#endif

#include <concepts>
#include <cuda/memory_resource>
#include <cuda/stream_ref>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

inline cuda::stream_ref to_cccl(stream_ref stream) noexcept { return cuda::stream_ref(stream.value()); }

/// A cenote resource that satisfies `cuda::mr::resource_with<Properties…>`: a value that shares the ownership of the
/// resource, so that any_resource may keep it. Equal are handles of the same resource.
template <class... Properties>
class cccl_resource {
 public:
  using default_queries = cuda::mr::properties_list<Properties...>;

  /// std::invalid_argument if `resource` is null, or if host_accessible is asked for and the host cannot reach its
  /// memory.
  explicit cccl_resource(std::shared_ptr<memory_resource> resource) : resource_(std::move(resource)) {
    if (!resource_) throw std::invalid_argument("a cccl_resource needs a resource, not null");
    if (default_queries::has_property(cuda::mr::host_accessible{}) && !resource_->is_host_accessible()) {
      throw std::invalid_argument("the host cannot reach the memory of " + describe(*resource_));
    }
  }

  /// As memory_resource's: out_of_memory, which is a std::bad_alloc; cuda_error; std::invalid_argument.
  void* allocate(cuda::stream_ref stream, std::size_t bytes, std::size_t alignment = default_alignment) {
    return resource_->allocate(stream, bytes, alignment);
  }
  void deallocate(cuda::stream_ref stream, void* pointer, std::size_t bytes,
                  std::size_t alignment = default_alignment) noexcept {
    resource_->deallocate(stream, pointer, bytes, alignment);
  }
  void* allocate_sync(std::size_t bytes, std::size_t alignment = default_alignment) {
    return resource_->allocate_sync(bytes, alignment);
  }
  void deallocate_sync(void* pointer, std::size_t bytes, std::size_t alignment = default_alignment) noexcept {
    resource_->deallocate_sync(pointer, bytes, alignment);
  }

  const std::shared_ptr<memory_resource>& resource() const noexcept { return resource_; }

  friend bool operator==(const cccl_resource&, const cccl_resource&) noexcept = default;

  /// Memory of every resource is device_accessible; only what Properties names is told to CCCL.
  template <class Property>
    requires(std::same_as<Property, Properties> || ...)
  friend constexpr void get_property(const cccl_resource&, Property) noexcept {}

 private:
  std::shared_ptr<memory_resource> resource_;
};

using cccl_device_resource = cccl_resource<cuda::mr::device_accessible>;
using cccl_host_device_resource = cccl_resource<cuda::mr::device_accessible, cuda::mr::host_accessible>;

/// Memory of a CCCL resource, held by value: the upstream of any pool or adaptor. It is asked for an alignment of
/// default_alignment and no more. A std::bad_alloc of its, or a cuda::cuda_error for want of memory, is "memory ran
/// out"; what else it throws passes through to whoever allocates.
class cccl_memory_resource final : public driver_memory_resource {
 public:
  /// On the current device, or on `device`, whose memory the upstream must give. The host reaches the memory if the
  /// upstream's type says host_accessible.
  template <cuda::mr::resource_with<cuda::mr::device_accessible> Resource>
  explicit cccl_memory_resource(Resource upstream) : cccl_memory_resource(std::move(upstream), current_device()) {}

  template <cuda::mr::resource_with<cuda::mr::device_accessible> Resource>
  cccl_memory_resource(Resource upstream, int device)
      : driver_memory_resource(device),
        source_(std::move(upstream)),
        is_host_accessible_(cuda::has_property<Resource, cuda::mr::host_accessible>) {
    check_device(device);
  }

  /// The CCCL resource itself.
  const cuda::mr::any_resource<cuda::mr::device_accessible>& source() const noexcept { return source_; }

  std::string kind() const override { return "cccl"; }
  bool is_host_accessible() const noexcept override { return is_host_accessible_; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override {
    try {
      return source_.allocate(to_cccl(stream), bytes, default_alignment);
    } catch (const std::bad_alloc&) {
      return nullptr;
    } catch (const cuda::cuda_error& error) {
      if (error.status() == cudaErrorMemoryAllocation) return nullptr;
      throw;
    }
  }

  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override {
    source_.deallocate(to_cccl(stream), pointer, bytes, default_alignment);
  }

  cuda::mr::any_resource<cuda::mr::device_accessible> source_;
  bool is_host_accessible_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
