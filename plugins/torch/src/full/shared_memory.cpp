#include "shared_memory.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core.hpp"

namespace cenote::torch {
namespace {

constexpr std::string_view of_core = "cenote-block:";
constexpr std::string_view of_driver = "cenote driver ";
constexpr std::size_t longest_handle = 512;

constexpr char how_to_share[] =
    "this memory cannot be mapped by another process. Pages can: cenote.install(\"pool | virtual\"), without ipc=false";

/// Where the driver's allocation under the pointer begins. PyTorch's plugin links no driver, which is loaded already.
CUdeviceptr base_of(void* pointer) {
  using get_range = CUresult (*)(CUdeviceptr*, std::size_t*, CUdeviceptr);
  static const auto range =
      reinterpret_cast<get_range>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuMemGetAddressRange_v2"));
  TORCH_CHECK(range != nullptr, "the driver has no cuMemGetAddressRange");
  CUdeviceptr base = 0;
  std::size_t size = 0;
  TORCH_CHECK(range(&base, &size, reinterpret_cast<CUdeviceptr>(pointer)) == CUDA_SUCCESS, how_to_share);
  return base;
}

/// "cenote driver OFFSET 64-bytes-in-hex".
std::string spell_driver_handle(const cudaIpcMemHandle_t& handle, std::size_t offset) {
  std::string text = std::string(of_driver) + std::to_string(offset) + ' ';
  for (const char each : handle.reserved) {
    const auto byte = static_cast<unsigned char>(each);
    text += "0123456789abcdef"[byte / 16];
    text += "0123456789abcdef"[byte % 16];
  }
  return text;
}

std::string share_plain(void* pointer) {
  cudaIpcMemHandle_t handle{};
  if (cudaIpcGetMemHandle(&handle, pointer) != cudaSuccess) {
    (void)cudaGetLastError();
    TORCH_CHECK(false, how_to_share);
  }
  return spell_driver_handle(handle, reinterpret_cast<CUdeviceptr>(pointer) - base_of(pointer));
}

std::shared_ptr<void> open_plain(const std::string& text) {
  const std::size_t offset_ends = text.find(' ', of_driver.size());
  cudaIpcMemHandle_t handle{};
  TORCH_CHECK(offset_ends != std::string::npos && text.size() == offset_ends + 1 + 2 * sizeof(handle.reserved),
              "a handle of another process is cut off");
  for (std::size_t i = 0; i < sizeof(handle.reserved); ++i) {
    handle.reserved[i] = static_cast<char>(std::stoi(text.substr(offset_ends + 1 + 2 * i, 2), nullptr, 16));
  }
  void* base = nullptr;
  C10_CUDA_CHECK(cudaIpcOpenMemHandle(&base, handle, cudaIpcMemLazyEnablePeerAccess));
  const c10::DeviceIndex device = c10::cuda::current_device();
  const std::shared_ptr<void> memory(base, [device](void* closed) {
    const c10::cuda::CUDAGuard guard(device);
    (void)cudaIpcCloseMemHandle(closed);
  });
  return {memory, static_cast<char*>(base) + std::stoull(text.substr(of_driver.size()))};
}

std::shared_ptr<void> open_block(const std::string& handle) {
  int device = 0;
  void* const stream = c10::cuda::getCurrentCUDAStream().stream();
  void* const opened = core().open_shared(handle.c_str(), stream, nullptr, &device);
  TORCH_CHECK(opened != nullptr, core().last_error());
  return {opened, [device](void* closed) {
            c10::cuda::OptionalCUDAGuard guard;
            try {
              guard.set_index(static_cast<c10::DeviceIndex>(device));
            } catch (...) {  // the process ends
              return;
            }
            if (cudaDeviceSynchronize() == cudaSuccess) core().close_shared(closed, nullptr);
          }};
}

}  // namespace

bool shared_memory::is_handle(const std::string& handle) {
  return handle.rfind(of_core, 0) == 0 || handle.rfind(of_driver, 0) == 0;
}

std::string shared_memory::share(void* pointer, std::size_t bytes, int device) {
  char handle[longest_handle];
  void* const stream = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
  const std::int64_t length = core().share(device, pointer, bytes, stream, handle, sizeof(handle));
  if (length < 0) {
    TORCH_CHECK(core().last_status() == CENOTE_FAILURE, core().last_error());
    return share_plain(pointer);
  }
  const std::lock_guard lock(mutex_);
  shared_.insert(pointer);
  shared_count_.store(shared_.size(), std::memory_order_relaxed);
  return handle;
}

void shared_memory::withdraw(void* pointer) noexcept {
  const std::lock_guard lock(mutex_);
  if (shared_.erase(pointer) == 0) return;
  shared_count_.store(shared_.size(), std::memory_order_relaxed);
  core().unshare(pointer);
}

std::shared_ptr<void> shared_memory::open(const std::string& handle) {
  const std::lock_guard lock(opening_);
  auto& known = open_[handle];
  if (auto opened = known.lock()) return opened;
  auto opened = handle.rfind(of_driver, 0) == 0 ? open_plain(handle) : open_block(handle);
  known = opened;
  return opened;
}

}  // namespace cenote::torch
