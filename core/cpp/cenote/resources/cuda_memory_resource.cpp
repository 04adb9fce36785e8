#include "cenote/resources/cuda_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"

namespace cenote::inline v1 {

cuda_memory_resource::cuda_memory_resource() : cuda_memory_resource(current_device()) {}

cuda_memory_resource::cuda_memory_resource(int device) : driver_memory_resource(device) { check_device(device); }

void* cuda_memory_resource::take(stream_ref stream, std::size_t bytes) {
  return budgeted_allocate(device(), bytes, stream);
}

void cuda_memory_resource::give(stream_ref stream, void* pointer, std::size_t bytes) noexcept {
  budgeted_free(device(), pointer, bytes, stream);
}

}  // namespace cenote::inline v1
