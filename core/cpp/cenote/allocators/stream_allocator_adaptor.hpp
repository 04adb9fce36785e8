// An allocator with a stream of its own: what standard containers call an allocator, made of a stream-ordered one.
//
//     std::vector<int, stream_allocator_adaptor<polymorphic_allocator<int>>> v({pinned_pool, stream});
//
// A container touches its elements from the host: the memory must be within its reach (pinned, managed, system), and
// usable there. On memory that was freed on the stream while work of the stream still used it, the caller waits for the
// stream before the container is filled.
//
// A container takes memory and stream along when it is moved or swapped, so that a block is freed on the stream that it
// was allocated on; a copy-assigned one keeps its own.
//
// Threads: as the allocator's.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "cenote/driver/stream.hpp"

namespace cenote {

/// `Allocator` has allocate(count, stream) and deallocate(pointer, count, stream), as polymorphic_allocator has.
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
      : allocator_(other.allocator()), stream_(other.stream()) {}

  value_type* allocate(std::size_t count) { return allocator_.allocate(count, stream_); }
  void deallocate(value_type* pointer, std::size_t count) noexcept { allocator_.deallocate(pointer, count, stream_); }

  const Allocator& allocator() const noexcept { return allocator_; }
  stream_ref stream() const noexcept { return stream_; }

  /// The stream counts: memory of one is not freed in the order of another.
  template <class Other>
  friend bool operator==(const stream_allocator_adaptor& a, const stream_allocator_adaptor<Other>& b) noexcept {
    return a.allocator() == b.allocator() && a.stream() == b.stream();
  }

 private:
  Allocator allocator_;
  stream_ref stream_;
};

}  // namespace cenote
