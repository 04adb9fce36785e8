#include "cenote/resources/callback_memory_resource.hpp"

#include <stdexcept>

#include "cenote/driver/device.hpp"
#include "cenote/driver/identified_scope.hpp"

namespace cenote::inline v1 {

callback_memory_resource::callback_memory_resource(allocate_function allocate, deallocate_function deallocate)
    : callback_memory_resource(current_device(), std::move(allocate), std::move(deallocate)) {}

callback_memory_resource::callback_memory_resource(int device, allocate_function allocate,
                                                   deallocate_function deallocate)
    : driver_memory_resource(device), allocate_(std::move(allocate)), deallocate_(std::move(deallocate)) {
  check_device(device);
  if (!allocate_ || !deallocate_) throw std::invalid_argument("a callback resource needs both of its functions");
}

void* callback_memory_resource::take(stream_ref stream, std::size_t bytes) {
  const unidentified_scope unidentified;
  return allocate_(stream, bytes);
}

void callback_memory_resource::give(stream_ref stream, void* pointer, std::size_t bytes) noexcept {
  const unidentified_scope unidentified;
  try {
    deallocate_(stream, pointer, bytes);
  } catch (const std::exception& error) {
    report_once("the deallocate function of a callback resource failed: ", error.what());
  } catch (...) {
    report_once("the deallocate function of a callback resource failed");
  }
}

}  // namespace cenote::inline v1
