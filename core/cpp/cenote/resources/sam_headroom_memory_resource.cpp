#include "cenote/resources/sam_headroom_memory_resource.hpp"

#include <algorithm>

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"

namespace cenote::inline v1 {
namespace {

/// Advice is taken page by page; a Grace processor's pages are the largest, 64 KiB.
constexpr std::size_t largest_page = 64 * KiB;

}  // namespace

sam_headroom_memory_resource::sam_headroom_memory_resource(std::size_t headroom)
    : sam_headroom_memory_resource(current_device(), headroom) {}

sam_headroom_memory_resource::sam_headroom_memory_resource(int device, std::size_t headroom)
    : driver_memory_resource(device), system_(device), headroom_(headroom) {}

void* sam_headroom_memory_resource::take(stream_ref stream, std::size_t bytes) {
  void* const pointer = system_.try_allocate(stream, bytes);
  if (pointer == nullptr) return nullptr;
  try {
    const std::size_t available = device_memory_info(device()).free_bytes;
    const std::size_t spare = available > headroom_ ? available - headroom_ : 0;
    const std::size_t on_device = spare >= bytes ? bytes : align_down(spare, largest_page);
    prefer_location(pointer, on_device, device(), device());
    prefer_location(static_cast<std::byte*>(pointer) + on_device, bytes - on_device, host_location, device());
  } catch (...) {
    system_.deallocate(stream, pointer, bytes);
    throw;
  }
  return pointer;
}

void sam_headroom_memory_resource::give(stream_ref stream, void* pointer, std::size_t bytes) noexcept {
  system_.deallocate(stream, pointer, bytes);
}

}  // namespace cenote::inline v1
