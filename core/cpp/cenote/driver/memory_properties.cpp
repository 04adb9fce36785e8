#include "cenote/driver/memory_properties.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_info.hpp"

namespace cenote::inline v1 {

int handle_types(export_handles handles) noexcept {
  return (handles.posix_file_descriptor ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0) |
         (handles.fabric ? CU_MEM_HANDLE_TYPE_FABRIC : 0);
}

bool has_decompression_engine(int device) {
  constexpr int first_driver = 12080;
  return driver_version() >= first_driver &&
         device_attribute(device, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK) != 0;
}

}  // namespace cenote::inline v1
