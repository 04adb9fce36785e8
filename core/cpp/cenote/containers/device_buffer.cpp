#include "cenote/containers/device_buffer.hpp"

#include <stdexcept>
#include <utility>

#include "cenote/driver/memory.hpp"

namespace cenote {

device_buffer::device_buffer(std::size_t bytes, stream_ref stream, std::shared_ptr<memory_resource> resource)
    : device_buffer(bytes, default_alignment, stream, std::move(resource)) {}

device_buffer::device_buffer(std::size_t bytes, std::size_t alignment, stream_ref stream,
                             std::shared_ptr<memory_resource> resource)
    : resource_(require_upstream(std::move(resource), "device_buffer")),
      stream_(stream),
      alignment_(alignment),
      data_(resource_->allocate(stream, bytes, alignment)),
      size_(bytes),
      capacity_(bytes) {}

device_buffer::device_buffer(const void* source, std::size_t bytes, stream_ref stream,
                             std::shared_ptr<memory_resource> resource)
    : device_buffer(source, bytes, default_alignment, stream, std::move(resource)) {}

device_buffer::device_buffer(const void* source, std::size_t bytes, std::size_t alignment, stream_ref stream,
                             std::shared_ptr<memory_resource> resource)
    : device_buffer(bytes, alignment, stream, std::move(resource)) {
  if (bytes != 0 && source == nullptr) throw std::logic_error("a buffer cannot be copied from a null pointer");
  copy_from(source, bytes, stream);
}

device_buffer::device_buffer(const device_buffer& other, stream_ref stream, std::shared_ptr<memory_resource> resource)
    : device_buffer(other.data_, other.size_, other.alignment_, stream, std::move(resource)) {}

device_buffer::~device_buffer() { close(); }

device_buffer::device_buffer(device_buffer&& other) noexcept
    : resource_(other.resource_),
      stream_(other.stream_),
      alignment_(other.alignment_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

device_buffer& device_buffer::operator=(device_buffer&& other) noexcept {
  if (this == &other) return *this;
  close();
  resource_ = other.resource_;
  stream_ = other.stream_;
  alignment_ = other.alignment_;
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  capacity_ = std::exchange(other.capacity_, 0);
  return *this;
}

void device_buffer::close() noexcept {
  resource_->deallocate(stream_, data_, capacity_, alignment_);
  data_ = nullptr;
  size_ = capacity_ = 0;
}

bool device_buffer::open_at_once(std::size_t bytes) noexcept {
  if (data_ != nullptr) return false;
  data_ = resource_->allocate_at_once(stream_, bytes, alignment_);
  if (data_ == nullptr) return false;
  size_ = capacity_ = bytes;
  return true;
}

bool device_buffer::close_at_once() noexcept {
  if (!resource_->deallocate_at_once(stream_, data_, capacity_, alignment_)) return false;
  data_ = nullptr;
  size_ = capacity_ = 0;
  return true;
}

void* device_buffer::release() noexcept {
  size_ = capacity_ = 0;
  return std::exchange(data_, nullptr);
}

void device_buffer::reallocate(std::size_t capacity, stream_ref stream) {
  device_buffer other(capacity, alignment_, stream, resource_);
  copy_async(other.data_, data_, size_, stream, device());
  other.size_ = size_;
  stream_ = stream;  // the old memory is freed after the copy out of it
  *this = std::move(other);
}

void device_buffer::reserve(std::size_t capacity, stream_ref stream) {
  if (capacity > capacity_) reallocate(capacity, stream);
  stream_ = stream;
}

void device_buffer::resize(std::size_t size, stream_ref stream) {
  reserve(size, stream);
  size_ = size;
}

void device_buffer::shrink_to_fit(stream_ref stream) {
  if (size_ < capacity_) reallocate(size_, stream);
  stream_ = stream;
}

void device_buffer::copy_from(const void* source, std::size_t bytes, stream_ref stream) {
  copy_async(data_, source, bytes, stream, device());
  stream_ = stream;
}

void device_buffer::copy_to(void* target, std::size_t bytes, stream_ref stream) const {
  copy_async(target, data_, bytes, stream, device());
}

void device_buffer::prefetch(int location, stream_ref stream) const {
  prefetch_async(data_, size_, location, stream, device());
}

}  // namespace cenote
