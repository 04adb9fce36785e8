// One element in memory of a device.
#pragma once

#include <rmm/device_uvector.hpp>

RMM_NAMESPACE_BEGIN

template <typename T>
class device_scalar {
 public:
  using value_type = typename device_uvector<T>::value_type;
  using size_type = typename device_uvector<T>::size_type;
  using reference = typename device_uvector<T>::reference;
  using const_reference = typename device_uvector<T>::const_reference;
  using pointer = typename device_uvector<T>::pointer;
  using const_pointer = typename device_uvector<T>::const_pointer;

  device_scalar() = delete;
  device_scalar(device_scalar&&) noexcept = default;
  device_scalar& operator=(device_scalar&&) noexcept = default;
  device_scalar(const device_scalar&) = delete;
  device_scalar& operator=(const device_scalar&) = delete;

  explicit device_scalar(cuda::stream_ref stream,
                         detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : storage_(1, stream, std::move(resource)) {}
  explicit device_scalar(const value_type& value, cuda::stream_ref stream,
                         detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : storage_(1, stream, std::move(resource)) {
    set_value_async(value, stream);
  }
  device_scalar(const value_type&&, cuda::stream_ref,
                detail::any_device_resource = mr::get_current_device_resource_ref()) = delete;
  device_scalar(const device_scalar& other, cuda::stream_ref stream,
                detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : storage_(other.storage_, stream, std::move(resource)) {}

  [[nodiscard]] value_type value(cuda::stream_ref stream) const { return storage_.front_element(stream); }
  void set_value_async(const value_type& value, cuda::stream_ref stream) {
    storage_.set_element_async(0, value, stream);
  }
  void set_value_async(const value_type&&, cuda::stream_ref) = delete;
  void set_value_to_zero_async(cuda::stream_ref stream) { storage_.set_element_to_zero_async(0, stream); }

  [[nodiscard]] pointer data() noexcept { return storage_.data(); }
  [[nodiscard]] const_pointer data() const noexcept { return storage_.data(); }
  [[nodiscard]] constexpr size_type size() const noexcept { return 1; }
  [[nodiscard]] cuda::stream_ref stream() const noexcept { return storage_.stream(); }
  void set_stream(cuda::stream_ref stream) noexcept { storage_.set_stream(stream); }

 private:
  device_uvector<T> storage_;
};

RMM_NAMESPACE_END
