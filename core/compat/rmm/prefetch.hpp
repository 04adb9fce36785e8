// Memory is brought to a device before it is used there.
#pragma once

#include <cstddef>
#include <cuda/std/span>
#include <cuda/stream_ref>
#include <rmm/cuda_device.hpp>
#include <rmm/detail/error.hpp>

#include "cenote/driver/memory.hpp"

RMM_NAMESPACE_BEGIN

inline void prefetch(const void* pointer, std::size_t size, cuda_device_id device, cuda::stream_ref stream) {
  detail::translated([&] { cenote::prefetch_async(pointer, size, device.value(), stream, cenote::current_device()); });
}

template <typename T>
void prefetch(cuda::std::span<const T> data, cuda_device_id device, cuda::stream_ref stream) {
  prefetch(data.data(), data.size_bytes(), device, stream);
}

RMM_NAMESPACE_END
