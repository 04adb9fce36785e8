#include "cenote/driver/exported_pool_block.hpp"

#include <cstring>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"

namespace cenote::inline v1 {

std::optional<exported_pool_block> export_pool_block(const void* address, int device) {
  const auto pointer = reinterpret_cast<CUdeviceptr>(address);
  const device_scope scope(device);
  CUmemoryPool pool = nullptr;
  if (driver().cuPointerGetAttribute(&pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pointer) != CUDA_SUCCESS ||
      pool == nullptr) {
    return std::nullopt;
  }
  int descriptor = -1;
  if (driver().cuMemPoolExportToShareableHandle(&descriptor, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) !=
      CUDA_SUCCESS) {
    return std::nullopt;
  }
  exported_pool_block exported{file_descriptor(descriptor), {}};
  CUmemPoolPtrExportData data{};
  if (driver().cuMemPoolExportPointer(&data, pointer) != CUDA_SUCCESS) return std::nullopt;
  static_assert(sizeof(data.reserved) == sizeof(exported.pointer));
  std::memcpy(exported.pointer.data(), data.reserved, sizeof(data.reserved));
  return exported;
}

}  // namespace cenote::inline v1
