// Devices.
#pragma once

#include <cstddef>
#include <rmm/aligned.hpp>
#include <rmm/detail/translated.hpp>
#include <utility>

#include "cenote/driver/device.hpp"

RMM_NAMESPACE_BEGIN

struct cuda_device_id;
cuda_device_id get_current_cuda_device();

struct cuda_device_id {
  using value_type = int;
  cuda_device_id() noexcept;
  explicit constexpr cuda_device_id(value_type id) noexcept : id_(id) {}
  [[nodiscard]] constexpr value_type value() const noexcept { return id_; }
  friend constexpr bool operator==(const cuda_device_id&, const cuda_device_id&) noexcept = default;

 private:
  value_type id_;
};

inline cuda_device_id get_current_cuda_device() {
  return detail::translated([] { return cuda_device_id(cenote::current_device()); });
}
inline cuda_device_id::cuda_device_id() noexcept : id_(get_current_cuda_device().value()) {}

inline int get_num_cuda_devices() {
  return detail::translated([] { return cenote::device_count(); });
}

/// Free and total bytes of the current device.
inline std::pair<std::size_t, std::size_t> available_device_memory() {
  return detail::translated([] {
    const cenote::device_memory memory = cenote::device_memory_info(cenote::current_device());
    return std::pair(memory.free_bytes, memory.total_bytes);
  });
}

inline std::size_t percent_of_free_device_memory(int percent) {
  const std::size_t free = available_device_memory().first;
  return align_down(static_cast<std::size_t>(static_cast<double>(free) * percent / 100), CUDA_ALLOCATION_ALIGNMENT);
}

/// Makes a device current until its end.
struct cuda_set_device_raii {
  explicit cuda_set_device_raii(cuda_device_id device)
      : before_(get_current_cuda_device()), is_set_(before_ != device) {
    if (is_set_) cenote::set_current_device(device.value());
  }
  ~cuda_set_device_raii() noexcept {
    if (is_set_) cenote::set_current_device(before_.value());
  }
  cuda_set_device_raii(const cuda_set_device_raii&) = delete;
  cuda_set_device_raii& operator=(const cuda_set_device_raii&) = delete;

 private:
  cuda_device_id before_;
  bool is_set_;
};

RMM_NAMESPACE_END
