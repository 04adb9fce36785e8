#include "cenote/resources/pinned_host_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {

pinned_host_memory_resource::pinned_host_memory_resource() : pinned_host_memory_resource(current_device()) {}

pinned_host_memory_resource::pinned_host_memory_resource(int device) : driver_memory_resource(device) {
  check_device(device);
}

void* pinned_host_memory_resource::take(stream_ref, std::size_t bytes) { return pinned_allocate(device(), bytes); }

void pinned_host_memory_resource::give(stream_ref stream, void* pointer, std::size_t) noexcept {
  // cuMemFreeHost is not documented to wait for work that uses the memory.
  if (!wait_before_give(stream)) return free_correction::say(pointer, 0);
  pinned_free(device(), pointer);
}

}  // namespace cenote::inline v1
