#include "cenote/resources/system_memory_resource.hpp"

#include <new>
#include <stdexcept>

#include "cenote/driver/device.hpp"
#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::align_val_t heap_alignment{default_alignment};

}  // namespace

system_memory_resource::system_memory_resource() : system_memory_resource(current_device()) {}

system_memory_resource::system_memory_resource(int device) : driver_memory_resource(device) {
  if (device_has_pageable_memory_access(device)) return;
  throw std::runtime_error("system memory needs a device that can use any memory of the host, and device " +
                           std::to_string(device) +
                           " cannot (no pageable memory access); use managed or pinned memory instead");
}

void* system_memory_resource::take(stream_ref, std::size_t bytes) {
  void* const pointer = ::operator new(bytes, heap_alignment, std::nothrow);
  if (pointer == nullptr) return nullptr;
  try {
    const std::lock_guard lock(mutex_);
    in_use_.insert(pointer);
  } catch (...) {
    ::operator delete(pointer, heap_alignment);
    throw;
  }
  return pointer;
}

void system_memory_resource::give(stream_ref stream, void* pointer, std::size_t) noexcept {
  bool is_ours = false;
  {
    const std::lock_guard lock(mutex_);
    is_ours = in_use_.erase(pointer) != 0;
  }
  if (!is_ours) {
    free_correction::say(pointer, 0);
    report_once(
        "a pointer was freed that the system memory resource did not give out, or that was freed already; it is "
        "ignored");
    return;
  }
  if (!wait_before_give(stream)) return free_correction::say(pointer, 0);
  ::operator delete(pointer, heap_alignment);
}

}  // namespace cenote::inline v1
