#include "cenote/driver/physical_page.hpp"

#include <cstdint>

#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/driver/memory_properties.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

CUmemAllocationProp memory_of(int device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = location_of(device);
  return properties;
}

CUmemAllocationProp spell(const page_properties& wanted) {
  CUmemAllocationProp properties = memory_of(wanted.device);
  properties.requestedHandleTypes = static_cast<CUmemAllocationHandleType>(handle_types(wanted.handles));
  if (wanted.for_rdma &&
      device_attribute(wanted.device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED) != 0) {
    properties.allocFlags.gpuDirectRDMACapable = 1;
  }
  if (has_decompression_engine(wanted.device)) properties.allocFlags.usage = CU_MEM_CREATE_USAGE_HW_DECOMPRESS;
  return properties;
}

}  // namespace

bool has_virtual_memory(int device) {
  return device_attribute(device, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) != 0;
}

bool has_page_descriptors(int device) {
  return has_virtual_memory(device) &&
         device_attribute(device, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED) != 0;
}

std::size_t virtual_memory_granularity(int device) {
  check_device(device);
  const CUmemAllocationProp properties = memory_of(device);
  std::size_t bytes = 0;
  CENOTE_DRIVER_CALL(cuMemGetAllocationGranularity, &bytes, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  return bytes;
}

std::shared_ptr<const physical_page> physical_page::create(const page_properties& properties, std::size_t bytes,
                                                           stream_ref stream) {
  const CUmemAllocationProp wanted = spell(properties);
  const std::shared_ptr<physical_page> page(new physical_page(properties.device, bytes));
  const auto result =
      static_cast<CUresult>(ask_for_memory(properties.device, bytes, stream, [handle = &page->handle_, bytes, &wanted] {
        if (!take_from_budget(wanted.location.id, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
        const CUresult answer = driver().cuMemCreate(handle, bytes, &wanted, 0);
        if (answer != CUDA_SUCCESS) give_back_to_budget(wanted.location.id, bytes);
        return answer;
      }));
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  check_driver("cuMemCreate", result);
  return page;
}

std::shared_ptr<const physical_page> physical_page::import(int device, std::size_t bytes,
                                                           const file_descriptor& exported) {
  const std::shared_ptr<physical_page> page(new physical_page(device, bytes, false));
  void* const descriptor = reinterpret_cast<void*>(static_cast<std::intptr_t>(exported.value()));
  CENOTE_DRIVER_CALL(cuMemImportFromShareableHandle, &page->handle_, descriptor,
                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  return page;
}

physical_page::~physical_page() {
  if (handle_ == 0 || driver_is_gone()) return;
  if (is_own_) give_back_to_budget(device_, bytes_);
  const auto release = [this] { return driver().cuMemRelease(handle_); };
  report_driver_failure("cuMemRelease", try_twice(release), "a page is leaked, as releasing it failed: ");
}

}  // namespace cenote::inline v1
