#include "cenote/containers/device_buffer.hpp"

#include <stdexcept>
#include <utility>

#include "cenote/driver/memory.hpp"
#include "cenote/surface/reclaimer.hpp"

namespace cenote::inline v1 {

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
    : device_buffer(other.size_, other.alignment_, stream, std::move(resource)) {
  other.begin_use(stream, device());
  copy_async(data_, other.data_, size_, stream, device());
  other.end_use(stream, device());
}

device_buffer::device_buffer(const device_buffer& other, std::size_t capacity, stream_ref stream)
    : device_buffer(capacity, other.alignment_, stream, other.resource_) {
  other.begin_use(stream);
  copy_async(data_, other.data_, other.size_, stream, device());
  size_ = other.size_;
}

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
  if (data_ == nullptr) return;
  if (stream_.is_known_here()) {
    resource_->deallocate(stream_.handle(), data_, capacity_, alignment_);
  } else {
    reclaimer& late = reclaimer::of(resource_->device());
    late.free_after_all_work(resource_, data_, capacity_, {}, reach::its_device, alignment_);
  }
  release();
}

bool device_buffer::open_at_once(std::size_t bytes) noexcept {
  if (data_ != nullptr || !stream_.is_known_here()) return false;
  data_ = resource_->allocate_at_once(stream_.handle(), bytes, alignment_);
  if (data_ == nullptr) return false;
  size_ = capacity_ = bytes;
  return true;
}

bool device_buffer::close_at_once() noexcept {
  if (!stream_.is_known_here() || !resource_->deallocate_at_once(stream_.handle(), data_, capacity_, alignment_))
    return false;
  release();
  return true;
}

void* device_buffer::release() noexcept {
  size_ = capacity_ = 0;
  return std::exchange(data_, nullptr);
}

// The stream of a buffer that has no memory may be gone.
void device_buffer::begin_use(stream_ref stream, int its_device) const {
  if (data_ != nullptr) order_after(stream, its_device, stream_, device());
}

void device_buffer::end_use(stream_ref stream, int its_device) const {
  if (data_ != nullptr) order_after(stream_, device(), stream, its_device);
}

void device_buffer::synchronize() const {
  if (data_ != nullptr) cenote::synchronize(stream_, device());
}

void device_buffer::move_to(stream_ref stream) {
  begin_use(stream);
  stream_ = stream;
}

void device_buffer::reallocate(std::size_t capacity, stream_ref stream) {
  device_buffer other(*this, capacity, stream);
  stream_ = stream;  // the old memory is freed after the copy out of it
  *this = std::move(other);
}

void device_buffer::reserve(std::size_t capacity, stream_ref stream) {
  if (capacity > capacity_) return reallocate(capacity, stream);
  move_to(stream);
}

void device_buffer::resize(std::size_t size, stream_ref stream) {
  reserve(size, stream);
  size_ = size;
}

void device_buffer::shrink_to_fit(stream_ref stream) {
  if (size_ < capacity_) return reallocate(size_, stream);
  move_to(stream);
}

void device_buffer::copy_from(const void* source, std::size_t bytes, stream_ref stream) {
  move_to(stream);
  copy_async(data_, source, bytes, stream, device());
}

void device_buffer::copy_to(void* target, std::size_t bytes, stream_ref stream) const {
  begin_use(stream);
  copy_async(target, data_, bytes, stream, device());
  end_use(stream);
}

void device_buffer::prefetch(int location, stream_ref stream) const {
  begin_use(stream);
  prefetch_async(data_, size_, location, stream, device());
  end_use(stream);
}

}  // namespace cenote::inline v1
