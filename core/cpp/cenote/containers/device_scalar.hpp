// One value in memory of a resource, for what a kernel takes or leaves: a device_uvector of one element.
//
// Reading and setting the value orders itself with stream() and does not change it (device_buffer).
//
// Threads: as device_uvector.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "cenote/containers/device_uvector.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

template <class T>
class device_scalar {
 public:
  using value_type = T;

  /// Not initialised.
  explicit device_scalar(stream_ref stream, std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : element_(1, stream, std::move(resource)) {}

  /// `value` must live, unchanged, until its copy on `stream` is done, and is no temporary.
  device_scalar(const T& value, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : device_scalar(stream, std::move(resource)) {
    set_value_async(value, stream);
  }
  device_scalar(const T&& value, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource()) = delete;

  /// Copies the value of `other`, in order with other.stream().
  device_scalar(const device_scalar& other, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource())
      : element_(other.element_, stream, std::move(resource)) {}

  device_scalar(const device_scalar&) = delete;  // a copy needs a stream
  device_scalar& operator=(const device_scalar&) = delete;
  device_scalar(device_scalar&&) noexcept = default;
  device_scalar& operator=(device_scalar&&) noexcept = default;

  /// The value; waits for `stream`. Throws std::out_of_range of one that was moved from, as the setters do.
  T value(stream_ref stream) const { return element_.front_element(stream); }

  /// Sets the value in stream order. `value` must live, unchanged, until the copy is done, and is no temporary.
  void set_value_async(const T& value, stream_ref stream) { element_.set_element_async(0, value, stream); }
  void set_value_async(const T&& value, stream_ref stream) = delete;

  /// Sets each byte to 0 in stream order.
  void set_value_to_zero_async(stream_ref stream) { element_.set_element_to_zero_async(0, stream); }

  T* data() noexcept { return element_.data(); }
  const T* data() const noexcept { return element_.data(); }
  std::size_t size() const noexcept { return element_.size(); }  ///< 1; 0 of one that was moved from
  stream_ref stream() const noexcept { return element_.stream(); }
  void set_stream(stream_ref stream) noexcept { element_.set_stream(stream); }
  void begin_use(stream_ref stream) const { element_.begin_use(stream); }
  void end_use(stream_ref stream) const { element_.end_use(stream); }
  int device() const noexcept { return element_.device(); }
  const std::shared_ptr<memory_resource>& resource() const noexcept { return element_.resource(); }

 private:
  device_uvector<T> element_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
