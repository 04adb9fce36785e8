#include "cenote/resources/managed_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"

namespace cenote::inline v1 {

managed_memory_resource::managed_memory_resource() : managed_memory_resource(current_device()) {}

managed_memory_resource::managed_memory_resource(int device) : driver_memory_resource(device) { check_device(device); }

void* managed_memory_resource::take(stream_ref stream, std::size_t bytes) {
  return managed_allocate(device(), bytes, stream);
}

void managed_memory_resource::give(stream_ref stream, void* pointer, std::size_t) noexcept {
  device_free(device(), pointer, stream);
}

}  // namespace cenote::inline v1
