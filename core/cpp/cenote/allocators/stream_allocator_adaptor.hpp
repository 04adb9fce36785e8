// An allocator with a stream of its own: what standard containers call an allocator, made of a stream-ordered one.
//
//     std::vector<int, stream_allocator_adaptor<polymorphic_allocator<int>>> v({pinned_pool, stream});
//
// A container touches its elements from the host: the memory must be within its reach (pinned, managed, system), and
// usable there. On memory that was freed on the stream while work of the stream still used it, the caller waits for the
// stream before the container is filled.
//
// A container takes memory and stream along when it is moved or swapped, so that a block is freed on the stream that it
// was allocated on; a copy-assigned one keeps its own. A container on the per-thread default stream is filled by the
// thread that made it; where another thread frees its memory, that comes after all work of the device.
//
// Threads: as the allocator's.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "cenote/driver/kept_stream.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// `Allocator` has allocate(count, stream) and deallocate(pointer, count, stream). One that frees on a kept_stream, as
/// polymorphic_allocator does, may have its containers destroyed by any thread.
template <class Allocator>
class stream_allocator_adaptor {
 public:
  using value_type = typename std::allocator_traits<Allocator>::value_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  template <class Other>
  struct rebind {
    using other = stream_allocator_adaptor<typename std::allocator_traits<Allocator>::template rebind_alloc<Other>>;
  };

  stream_allocator_adaptor(Allocator allocator, stream_ref stream)
      : allocator_(std::move(allocator)), stream_(stream) {}

  template <class Other>
  stream_allocator_adaptor(const stream_allocator_adaptor<Other>& other)
      : allocator_(other.allocator()), stream_(other.kept()) {}

  value_type* allocate(std::size_t count) { return allocator_.allocate(count, stream()); }
  void deallocate(value_type* pointer, std::size_t count) noexcept {
    if constexpr (requires { allocator_.deallocate(pointer, count, stream_); }) {
      allocator_.deallocate(pointer, count, stream_);
    } else {
      allocator_.deallocate(pointer, count, stream());
    }
  }

  const Allocator& allocator() const noexcept { return allocator_; }
  stream_ref stream() const noexcept { return stream_.handle(); }
  const kept_stream& kept() const noexcept { return stream_; }

  /// The stream counts: memory of one is not freed in the order of another.
  template <class Other>
  friend bool operator==(const stream_allocator_adaptor& a, const stream_allocator_adaptor<Other>& b) noexcept {
    return a.allocator() == b.allocator() && a.kept() == b.kept();
  }

 private:
  Allocator allocator_;
  kept_stream stream_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
