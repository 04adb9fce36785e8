// Elements in memory of a device, uninitialised.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cuda/std/iterator>
#include <cuda/std/span>
#include <limits>
#include <rmm/detail/error.hpp>
#include <rmm/device_buffer.hpp>
#include <type_traits>
#include <utility>

#include "cenote/driver/memory.hpp"
#include "cenote/driver/stream_ref.hpp"

RMM_NAMESPACE_BEGIN

template <typename T>
class device_uvector {
  static_assert(std::is_trivially_copyable_v<T>, "device_uvector only supports types that are trivially copyable.");

 public:
  using value_type = T;
  using size_type = std::size_t;
  using reference = value_type&;
  using const_reference = const value_type&;
  using pointer = value_type*;
  using const_pointer = const value_type*;
  using iterator = pointer;
  using const_iterator = const_pointer;
  using reverse_iterator = cuda::std::reverse_iterator<iterator>;
  using const_reverse_iterator = cuda::std::reverse_iterator<const_iterator>;

  device_uvector() = delete;
  device_uvector(device_uvector&&) noexcept = default;
  device_uvector& operator=(device_uvector&&) noexcept = default;
  device_uvector(const device_uvector&) = delete;
  device_uvector& operator=(const device_uvector&) = delete;

  explicit device_uvector(size_type size, cuda::stream_ref stream,
                          detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : storage_(bytes_of(size), std::max(alignof(T), CUDA_ALLOCATION_ALIGNMENT), stream, std::move(resource)) {}
  explicit device_uvector(const device_uvector& other, cuda::stream_ref stream,
                          detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : storage_(other.storage_, stream, std::move(resource)) {}

  [[nodiscard]] pointer element_ptr(size_type index) noexcept { return data() + index; }
  [[nodiscard]] const_pointer element_ptr(size_type index) const noexcept { return data() + index; }

  void set_element_async(size_type index, const value_type& value, cuda::stream_ref stream) {
    T* const to = element_ptr(checked(index));
    detail::translated([&] { cenote::copy_async(to, &value, sizeof(T), stream, storage_.over().device()); });
  }
  void set_element_async(size_type, const value_type&&, cuda::stream_ref) = delete;
  void set_element_to_zero_async(size_type index, cuda::stream_ref stream) {
    T* const to = element_ptr(checked(index));
    detail::translated([&] { cenote::fill_async(to, 0, sizeof(T), stream, storage_.over().device()); });
  }
  void set_element(size_type index, const T& value, cuda::stream_ref stream) {
    set_element_async(index, value, stream);
    synchronize(stream);
  }
  [[nodiscard]] value_type element(size_type index, cuda::stream_ref stream) const {
    const T* const from = element_ptr(checked(index));
    value_type value;
    detail::translated([&] { cenote::copy_async(&value, from, sizeof(T), stream, storage_.over().device()); });
    synchronize(stream);
    return value;
  }
  [[nodiscard]] value_type front_element(cuda::stream_ref stream) const { return element(0, stream); }
  [[nodiscard]] value_type back_element(cuda::stream_ref stream) const { return element(size() - 1, stream); }

  void reserve(size_type capacity, cuda::stream_ref stream) { storage_.reserve(bytes_of(capacity), stream); }
  void resize(size_type size, cuda::stream_ref stream) { storage_.resize(bytes_of(size), stream); }
  void shrink_to_fit(cuda::stream_ref stream) { storage_.shrink_to_fit(stream); }
  device_buffer release() noexcept { return std::move(storage_); }

  [[nodiscard]] size_type capacity() const noexcept { return storage_.capacity() / sizeof(T); }
  [[nodiscard]] pointer data() noexcept { return static_cast<pointer>(storage_.data()); }
  [[nodiscard]] const_pointer data() const noexcept { return static_cast<const_pointer>(storage_.data()); }
  [[nodiscard]] iterator begin() noexcept { return data(); }
  [[nodiscard]] const_iterator begin() const noexcept { return data(); }
  [[nodiscard]] const_iterator cbegin() const noexcept { return data(); }
  [[nodiscard]] iterator end() noexcept { return data() + size(); }
  [[nodiscard]] const_iterator end() const noexcept { return data() + size(); }
  [[nodiscard]] const_iterator cend() const noexcept { return data() + size(); }
  [[nodiscard]] reverse_iterator rbegin() noexcept { return reverse_iterator(end()); }
  [[nodiscard]] const_reverse_iterator rbegin() const noexcept { return crbegin(); }
  [[nodiscard]] const_reverse_iterator crbegin() const noexcept { return const_reverse_iterator(cend()); }
  [[nodiscard]] reverse_iterator rend() noexcept { return reverse_iterator(begin()); }
  [[nodiscard]] const_reverse_iterator rend() const noexcept { return crend(); }
  [[nodiscard]] const_reverse_iterator crend() const noexcept { return const_reverse_iterator(cbegin()); }
  [[nodiscard]] size_type size() const noexcept { return storage_.size() / sizeof(T); }
  [[nodiscard]] std::int64_t ssize() const noexcept { return static_cast<std::int64_t>(size()); }
  [[nodiscard]] bool is_empty() const noexcept { return size() == 0; }
  [[nodiscard]] operator cuda::std::span<const T>() const noexcept { return cuda::std::span<const T>(data(), size()); }
  [[nodiscard]] operator cuda::std::span<T>() noexcept { return cuda::std::span<T>(data(), size()); }

  [[nodiscard]] device_async_resource_ref memory_resource() noexcept { return storage_.memory_resource(); }
  [[nodiscard]] cuda::stream_ref stream() const noexcept { return storage_.stream(); }
  void set_stream(cuda::stream_ref stream) noexcept { storage_.set_stream(stream); }

 private:
  static size_type bytes_of(size_type count) {
    RMM_EXPECTS(count <= std::numeric_limits<size_type>::max() / sizeof(T),
                "Requested size overflows device_uvector storage.", rmm::invalid_argument);
    return count * sizeof(T);
  }
  size_type checked(size_type index) const {
    RMM_EXPECTS(index < size(), "Attempt to access out of bounds element.", rmm::out_of_range);
    return index;
  }
  void synchronize(cuda::stream_ref stream) const {
    detail::translated([&] { cenote::synchronize(stream, storage_.over().device()); });
  }

  device_buffer storage_;
};

RMM_NAMESPACE_END
