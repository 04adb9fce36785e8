// A typed, stream-ordered allocator over any resource, as std::pmr::polymorphic_allocator is over std::pmr's.
//
// It keeps its resource alive, and counts in objects of T. It constructs none: the memory may be out of the host's
// reach. Where a standard container is to use it, a stream_allocator_adaptor gives it a stream.
//
// Threads: as memory_resource.
#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

#include "cenote/driver/kept_stream.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/registry.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

template <class T = std::byte>
class polymorphic_allocator {
 public:
  using value_type = T;

  /// Of the resource that is current now; it does not follow when another is set.
  polymorphic_allocator() : polymorphic_allocator(get_current_device_resource()) {}

  /// Implicit, as in std::pmr. std::invalid_argument if `resource` is null.
  polymorphic_allocator(std::shared_ptr<memory_resource> resource) : resource_(std::move(resource)) {
    if (!resource_) throw std::invalid_argument("a polymorphic_allocator needs a resource, not null");
  }

  template <std::derived_from<memory_resource> Resource>
  polymorphic_allocator(std::shared_ptr<Resource> resource)
      : polymorphic_allocator(std::shared_ptr<memory_resource>(std::move(resource))) {}

  template <class Other>
  polymorphic_allocator(const polymorphic_allocator<Other>& other) noexcept : resource_(other.resource()) {}

  /// Memory for `count` objects, aligned for them. std::bad_array_new_length if their bytes would pass 2^64; else as
  /// memory_resource::allocate.
  T* allocate(std::size_t count, stream_ref stream) {
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(resource_->allocate(stream, count * sizeof(T), alignof(T)));
  }

  void deallocate(T* pointer, std::size_t count, stream_ref stream) noexcept {
    resource_->deallocate(stream, pointer, count * sizeof(T), alignof(T));
  }

  /// The same for a stream that was kept: after all work of the device if it is another thread's own.
  void deallocate(T* pointer, std::size_t count, const kept_stream& stream) noexcept {
    if (stream.is_known_here()) return deallocate(pointer, count, stream.handle());
    if (pointer == nullptr) return;
    reclaimer& late = reclaimer::of(resource_->device());
    late.free_after_all_work(resource_, pointer, count * sizeof(T), {}, reach::its_device, alignof(T));
  }

  const std::shared_ptr<memory_resource>& resource() const noexcept { return resource_; }

  template <class Other>
  friend bool operator==(const polymorphic_allocator& a, const polymorphic_allocator<Other>& b) noexcept {
    return a.resource() == b.resource();
  }

 private:
  std::shared_ptr<memory_resource> resource_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
