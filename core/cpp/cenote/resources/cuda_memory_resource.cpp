#include "cenote/resources/cuda_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/resources/driver_alignment.hpp"

namespace cenote {

cuda_memory_resource::cuda_memory_resource() : cuda_memory_resource(current_device()) {}

cuda_memory_resource::cuda_memory_resource(int device) : memory_resource(device) { check_device(device); }

void* cuda_memory_resource::do_allocate(stream_ref, std::size_t bytes, std::size_t alignment) {
  require_driver_alignment(*this, alignment);
  return device_allocate(device(), bytes);
}

void cuda_memory_resource::do_deallocate(stream_ref, void* pointer, std::size_t, std::size_t) noexcept {
  device_free(device(), pointer);  // waits for all work of the device, and so for `stream`
}

}  // namespace cenote
