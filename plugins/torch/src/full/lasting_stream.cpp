#include "lasting_stream.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <array>
#include <mutex>

namespace cenote::torch {

cudaStream_t lasting_stream(c10::DeviceIndex device) {
  struct made_streams {
    std::mutex mutex;  // guards the rest
    std::array<cudaStream_t, 128> of_device{};
  };
  static made_streams& made = *new made_streams;  // never destroyed: frees come to the end
  const std::lock_guard lock(made.mutex);
  cudaStream_t& stream = made.of_device[static_cast<std::size_t>(device)];
  if (stream == nullptr) {
    const c10::cuda::OptionalCUDAGuard guard(device);
    const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
    C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  return stream;
}

}  // namespace cenote::torch
