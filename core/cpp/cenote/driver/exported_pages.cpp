#include "cenote/driver/exported_pages.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"

namespace cenote::inline v1 {
namespace {

/// One more reference to a page's handle.
class page_hold {
 public:
  explicit page_hold(const std::byte* address)
      : result_(driver().cuMemRetainAllocationHandle(&handle_, const_cast<std::byte*>(address))) {}
  ~page_hold() {
    if (result_ == CUDA_SUCCESS) report_driver_failure("cuMemRelease", driver().cuMemRelease(handle_));
  }
  page_hold(const page_hold&) = delete;
  page_hold& operator=(const page_hold&) = delete;

  CUresult result() const noexcept { return result_; }
  CUmemGenericAllocationHandle handle() const noexcept { return handle_; }

 private:
  CUmemGenericAllocationHandle handle_ = 0;
  CUresult result_;
};

}  // namespace

std::vector<page_place> pages_under(const void* address, std::size_t bytes, int device) {
  const device_scope scope(device);
  const auto* const begin = static_cast<const std::byte*>(address);
  if (bytes == 0 || page_hold(begin).result() != CUDA_SUCCESS) return {};
  std::vector<page_place> pages;
  for (const std::byte* at = begin; at < begin + bytes; at = pages.back().address + pages.back().bytes) {
    CUdeviceptr base = 0;
    std::size_t size = 0;
    CENOTE_DRIVER_CALL(cuMemGetAddressRange, &base, &size, reinterpret_cast<CUdeviceptr>(at));
    pages.push_back({reinterpret_cast<const std::byte*>(base), size});
  }
  return pages;
}

file_descriptor export_page(const page_place& page, int device) {
  const device_scope scope(device);
  const page_hold held(page.address);
  check_driver("cuMemRetainAllocationHandle", held.result());
  int descriptor = -1;
  CENOTE_DRIVER_CALL(cuMemExportToShareableHandle, &descriptor, held.handle(), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                     0);
  return file_descriptor(descriptor);
}

}  // namespace cenote::inline v1
