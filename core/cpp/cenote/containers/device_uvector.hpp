// A row of elements in memory of a resource, not initialised: typed memory as device_buffer is untyped.
//
// Elements are copied as bytes between host and device, so that they must be trivially copyable, and -0.0 and padding
// stay what they are. size() and capacity() count elements. Its range is contiguous: it converts to std::span, and
// algorithms that run on the device take begin() and end(); the host must not read through them unless the resource is
// host-accessible.
//
// Reading and setting an element orders itself with stream() and does not change it (device_buffer). A row that was
// moved from is empty, of the same resource, and can be used again.
//
// Threads: as std::vector: reading from several, changing from one.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "cenote/containers/device_buffer.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

template <class T>
class device_uvector {
  static_assert(std::is_trivially_copyable_v<T>, "elements are copied as bytes");
  static_assert(std::is_same_v<T, std::remove_cv_t<T>>, "elements are neither const nor volatile");

 public:
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using const_reference = const T&;
  using pointer = T*;
  using const_pointer = const T*;
  using iterator = T*;
  using const_iterator = const T*;
  using reverse_iterator = std::reverse_iterator<iterator>;
  using const_reverse_iterator = std::reverse_iterator<const_iterator>;

  /// What the memory is aligned to: an element's own alignment, if that is more than a resource gives unasked.
  static constexpr std::size_t alignment = std::max(alignof(T), default_alignment);

  /// Throws out_of_memory, and std::invalid_argument if the size in bytes would pass 2^64. So do reserve and resize.
  device_uvector(std::size_t size, stream_ref stream,
                 std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : buffer_(bytes_of(size), alignment, stream, std::move(resource)) {}

  /// Copies the elements of `other`, in order with other.stream().
  device_uvector(const device_uvector& other, stream_ref stream,
                 std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : buffer_(other.buffer_, stream, std::move(resource)) {}

  device_uvector(const device_uvector&) = delete;  // a copy needs a stream
  device_uvector& operator=(const device_uvector&) = delete;
  device_uvector(device_uvector&&) noexcept = default;
  device_uvector& operator=(device_uvector&&) noexcept = default;

  T* data() noexcept { return static_cast<T*>(buffer_.data()); }
  const T* data() const noexcept { return static_cast<const T*>(buffer_.data()); }
  std::size_t size() const noexcept { return buffer_.size() / sizeof(T); }
  std::ptrdiff_t ssize() const noexcept { return static_cast<std::ptrdiff_t>(size()); }
  bool is_empty() const noexcept { return buffer_.is_empty(); }
  std::size_t capacity() const noexcept { return buffer_.capacity() / sizeof(T); }
  stream_ref stream() const noexcept { return buffer_.stream(); }
  int device() const noexcept { return buffer_.device(); }
  const std::shared_ptr<memory_resource>& resource() const noexcept { return buffer_.resource(); }

  /// From now on the elements are used on, and freed on, `stream`; ordering the two is the caller's affair.
  void set_stream(stream_ref stream) noexcept { buffer_.set_stream(stream); }

  /// For work on the elements that others queue on `stream`, between these two (device_buffer).
  void begin_use(stream_ref stream) const { buffer_.begin_use(stream); }
  void end_use(stream_ref stream) const { buffer_.end_use(stream); }

  /// Elements are kept, new ones are not initialised. Nothing has changed if it throws. `stream` becomes stream().
  void reserve(std::size_t capacity, stream_ref stream) { buffer_.reserve(bytes_of(capacity), stream); }
  void resize(std::size_t size, stream_ref stream) { buffer_.resize(bytes_of(size), stream); }
  void shrink_to_fit(stream_ref stream) { buffer_.shrink_to_fit(stream); }

  /// The memory, which leaves this one empty.
  device_buffer release() noexcept { return std::move(buffer_); }

  /// The address of an element. Throws std::out_of_range if there is none, as all functions do that take an index.
  T* element_ptr(std::size_t index) { return data() + checked(index); }
  const T* element_ptr(std::size_t index) const { return data() + checked(index); }

  /// An element's value; waits for `stream`.
  T element(std::size_t index, stream_ref stream) const {
    const T* const source = element_ptr(index);
    std::array<std::byte, sizeof(T)> bytes;
    begin_use(stream);
    copy_async(bytes.data(), source, sizeof(T), stream, device());
    synchronize(stream, device());
    return std::bit_cast<T>(bytes);
  }
  T front_element(stream_ref stream) const { return element(0, stream); }
  T back_element(stream_ref stream) const { return element(size() - 1, stream); }  // of an empty one: 2^64 - 1

  /// Sets an element and waits for `stream`.
  void set_element(std::size_t index, const T& value, stream_ref stream) {
    set_element_async(index, value, stream);
    synchronize(stream, device());
  }

  /// Sets an element in stream order. `value` must live, unchanged, until the copy is done, and is no temporary.
  void set_element_async(std::size_t index, const T& value, stream_ref stream) {
    T* const target = element_ptr(index);
    begin_use(stream);
    copy_async(target, std::addressof(value), sizeof(T), stream, device());
    end_use(stream);
  }
  void set_element_async(std::size_t index, const T&& value, stream_ref stream) = delete;

  /// Sets each byte of an element to 0 in stream order.
  void set_element_to_zero_async(std::size_t index, stream_ref stream) {
    T* const target = element_ptr(index);
    begin_use(stream);
    fill_async(target, 0, sizeof(T), stream, device());
    end_use(stream);
  }

  iterator begin() noexcept { return data(); }
  iterator end() noexcept { return data() + size(); }
  const_iterator begin() const noexcept { return data(); }
  const_iterator end() const noexcept { return data() + size(); }
  const_iterator cbegin() const noexcept { return begin(); }
  const_iterator cend() const noexcept { return end(); }
  reverse_iterator rbegin() noexcept { return reverse_iterator(end()); }
  reverse_iterator rend() noexcept { return reverse_iterator(begin()); }
  const_reverse_iterator rbegin() const noexcept { return const_reverse_iterator(end()); }
  const_reverse_iterator rend() const noexcept { return const_reverse_iterator(begin()); }
  const_reverse_iterator crbegin() const noexcept { return rbegin(); }
  const_reverse_iterator crend() const noexcept { return rend(); }

 private:
  static std::size_t bytes_of(std::size_t count) {
    if (count <= std::numeric_limits<std::size_t>::max() / sizeof(T)) return count * sizeof(T);
    throw std::invalid_argument("element count " + std::to_string(count) + " of " + std::to_string(sizeof(T)) +
                                " bytes wraps: the size in bytes passes 2^64");
  }

  std::size_t checked(std::size_t index) const {
    if (index < size()) return index;
    throw std::out_of_range("there is no element " + std::to_string(index) + " in a device_uvector of " +
                            std::to_string(size()));
  }

  device_buffer buffer_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
