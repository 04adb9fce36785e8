// Memory of a device, of a resource and a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <rmm/mr/per_device_resource.hpp>
#include <utility>

#include "cenote/containers/device_buffer.hpp"

RMM_NAMESPACE_BEGIN

class device_buffer {
 public:
  device_buffer() : device_buffer(0, cuda::stream_ref{cudaStream_t{nullptr}}) {}

  explicit device_buffer(std::size_t size, cuda::stream_ref stream,
                         detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : resource_(std::move(resource)),
        buffer_(detail::allocating([&] { return cenote::device_buffer(size, stream, detail::to_cenote(resource_)); })) {
  }

  explicit device_buffer(std::size_t size, std::size_t alignment, cuda::stream_ref stream,
                         detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : resource_(std::move(resource)), buffer_(detail::allocating([&] {
          return cenote::device_buffer(size, alignment, stream, detail::to_cenote(resource_));
        })) {}

  /// Copies from host or device memory.
  device_buffer(const void* source, std::size_t size, cuda::stream_ref stream,
                detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : resource_(std::move(resource)), buffer_(detail::allocating([&] {
          return cenote::device_buffer(source, size, stream, detail::to_cenote(resource_));
        })) {}

  explicit device_buffer(const void* source, std::size_t size, std::size_t alignment, cuda::stream_ref stream,
                         detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : resource_(std::move(resource)), buffer_(detail::allocating([&] {
          return cenote::device_buffer(source, size, alignment, stream, detail::to_cenote(resource_));
        })) {}

  device_buffer(const device_buffer& other, cuda::stream_ref stream,
                detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : resource_(std::move(resource)), buffer_(detail::allocating([&] {
          return cenote::device_buffer(other.buffer_, stream, detail::to_cenote(resource_));
        })) {}

  device_buffer(device_buffer&&) noexcept = default;
  device_buffer& operator=(device_buffer&&) noexcept = default;
  device_buffer(const device_buffer&) = delete;
  device_buffer& operator=(const device_buffer&) = delete;

  void reserve(std::size_t capacity, cuda::stream_ref stream) {
    detail::allocating([&] { buffer_.reserve(capacity, stream); });
  }
  void resize(std::size_t size, cuda::stream_ref stream) {
    detail::allocating([&] { buffer_.resize(size, stream); });
  }
  void shrink_to_fit(cuda::stream_ref stream) {
    detail::allocating([&] { buffer_.shrink_to_fit(stream); });
  }

  [[nodiscard]] const void* data() const noexcept { return buffer_.data(); }
  void* data() noexcept { return buffer_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return buffer_.size(); }
  [[nodiscard]] std::int64_t ssize() const noexcept { return buffer_.ssize(); }
  [[nodiscard]] bool is_empty() const noexcept { return buffer_.is_empty(); }
  [[nodiscard]] std::size_t capacity() const noexcept { return buffer_.capacity(); }
  [[nodiscard]] std::size_t alignment() const noexcept { return buffer_.alignment(); }
  [[nodiscard]] cuda::stream_ref stream() const noexcept { return cenote::to_cccl(buffer_.stream()); }
  void set_stream(cuda::stream_ref stream) noexcept { buffer_.set_stream(stream); }
  [[nodiscard]] device_async_resource_ref memory_resource() noexcept { return resource_; }

  /// Cenote's own, for what RMM has no name for.
  [[nodiscard]] const cenote::device_buffer& over() const noexcept { return buffer_; }

 private:
  detail::any_device_resource resource_;
  cenote::device_buffer buffer_;
};

RMM_NAMESPACE_END
