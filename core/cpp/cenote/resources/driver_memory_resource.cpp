#include "cenote/resources/driver_memory_resource.hpp"

namespace cenote {
namespace {

std::size_t with_room_to_align(std::size_t bytes, std::size_t alignment) { return bytes + alignment; }

}  // namespace

void* driver_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  if (alignment == default_alignment) return take(stream, bytes);
  const std::size_t taken = with_room_to_align(bytes, alignment);  // no overflow: both are at most max_allocation
  if (taken > max_allocation) return nullptr;
  void* const base = take(stream, taken);
  if (base == nullptr) return nullptr;
  void* const aligned = reinterpret_cast<void*>(align_up(reinterpret_cast<std::uintptr_t>(base), alignment));
  try {
    const std::lock_guard lock(mutex_);
    bases_.emplace(aligned, base);
  } catch (...) {
    give(stream, base, taken);
    throw;
  }
  return aligned;
}

void driver_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
  if (alignment == default_alignment) return give(stream, pointer, bytes);
  void* base = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = bases_.extract(pointer);
    if (found) base = found.mapped();
  }
  if (base != nullptr) return give(stream, base, with_room_to_align(bytes, alignment));
  report_once("a pointer was freed with an alignment of ", alignment,
              " that it was not allocated with, or twice; it is leaked");
}

}  // namespace cenote
