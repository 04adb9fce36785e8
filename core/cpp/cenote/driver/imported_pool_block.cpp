#include "cenote/driver/imported_pool_block.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

imported_pool_block::imported_pool_block(int device, const exported_pool_block& exported, std::span<const int> peers)
    : device_(device) {
  const device_scope scope(device);
  void* const descriptor = reinterpret_cast<void*>(static_cast<std::intptr_t>(exported.pool.value()));
  CENOTE_DRIVER_CALL(cuMemPoolImportFromShareableHandle, &pool_, descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                     0);
  try {
    std::vector<CUmemAccessDesc> uses;
    for (const int peer : peers) uses.push_back({location_of(peer), CU_MEM_ACCESS_FLAGS_PROT_READWRITE});
    if (!uses.empty()) CENOTE_DRIVER_CALL(cuMemPoolSetAccess, pool_, uses.data(), uses.size());
    CUmemPoolPtrExportData data{};
    std::memcpy(data.reserved, exported.pointer.data(), exported.pointer.size());
    CENOTE_DRIVER_CALL(cuMemPoolImportPointer, &pointer_, pool_, &data);
  } catch (...) {
    end();
    throw;
  }
}

imported_pool_block::~imported_pool_block() {
  if (driver_is_gone()) return;
  try {
    const device_scope scope(device_);
    end();
  } catch (const std::exception& error) {
    report_once("a block of another process stays mapped: ", error.what());
  }
}

void imported_pool_block::end() noexcept {
  if (pointer_ != 0) report_driver_failure("cuMemFree", driver().cuMemFree(pointer_));
  report_driver_failure("cuMemPoolDestroy", driver().cuMemPoolDestroy(pool_));
}

}  // namespace cenote::inline v1
