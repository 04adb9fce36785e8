// The current resource of each device: cenote's, which every library of the process that is on cenote shares.
//
// A reference stands for the resource that was current when it was asked for, until another is asked for or set on that
// device. Who keeps one longer keeps an any_resource, as RMM's own classes do.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <rmm/cuda_device.hpp>
#include <rmm/detail/handle.hpp>
#include <rmm/mr/cuda_memory_resource.hpp>
#include <rmm/resource_ref.hpp>

#include "cenote/surface/registry.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {
namespace detail {

/// Keeps the handles of the resources that were current last, as references point to them.
struct RMM_EXPORT current_handles {
  static constexpr int max_devices = 64;

  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  std::array<std::optional<cenote::cccl_device_resource>, max_devices> of_device;

  cenote::cccl_device_resource& renewed(int device, std::shared_ptr<cenote::memory_resource> now) {
    std::optional<cenote::cccl_device_resource>& place = of_device.at(device);
    std::optional<cenote::cccl_device_resource> before;  // ends after the lock
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
    if (!place.has_value() || place->resource() != now) {
      before = std::move(place);
      place.emplace(std::move(now));
    }
    busy.clear(std::memory_order_release);
    return *place;
  }
};

RMM_EXPORT inline current_handles& handles() {
  static auto* const made = new current_handles;  // for ever: containers end when the process does
  return *made;
}

/// A resource that was current as one of CCCL's; RMM's first one, the driver's plain memory, where there was none.
inline any_device_resource as_any(std::shared_ptr<cenote::memory_resource> resource, int device) {
  if (!resource) resource = std::make_shared<cenote::cuda_memory_resource>(device);
  return cenote::cccl_device_resource(std::move(resource));
}

}  // namespace detail

inline device_async_resource_ref get_per_device_resource_ref(cuda_device_id device) {
  auto current = rmm::detail::translated([&] { return cenote::get_per_device_resource(device.value()); });
  return detail::handles().renewed(device.value(), std::move(current));
}

/// Returns the previous one.
inline detail::any_device_resource set_per_device_resource(cuda_device_id device,
                                                           detail::any_device_resource resource) {
  return rmm::detail::translated([&] {
    auto ours = std::make_shared<cenote::cccl_memory_resource>(std::move(resource), device.value());
    auto before = cenote::set_per_device_resource(device.value(), ours);
    detail::handles().renewed(device.value(), std::move(ours));
    return detail::as_any(std::move(before), device.value());
  });
}

inline detail::any_device_resource reset_per_device_resource(cuda_device_id device) {
  return rmm::detail::translated(
      [&] { return detail::as_any(cenote::reset_per_device_resource(device.value()), device.value()); });
}

inline device_async_resource_ref get_current_device_resource_ref() {
  return get_per_device_resource_ref(get_current_cuda_device());
}
inline detail::any_device_resource set_current_device_resource(detail::any_device_resource resource) {
  return set_per_device_resource(get_current_cuda_device(), std::move(resource));
}
inline detail::any_device_resource reset_current_device_resource() {
  return reset_per_device_resource(get_current_cuda_device());
}

}  // namespace mr
RMM_NAMESPACE_END
