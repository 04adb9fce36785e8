#include "cenote/resources/driver_memory_resource.hpp"

#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {
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

bool driver_memory_resource::is_captured_or_report(stream_ref stream) const noexcept {
  try {
    return is_capturing(stream, device());
  } catch (const std::exception& error) {
    report_once("memory was freed on a stream that cannot be asked whether it is being captured: ", error.what());
    return false;
  }
}

bool driver_memory_resource::wait_before_give(stream_ref stream) const noexcept {
  try {
    if (is_captured_or_report(stream)) {
      report_once("memory of the resource '", kind(),
                  "' is leaked, as it was freed on a stream that is being captured: free it before or after");
      return false;
    }
    if (stream.is_legacy_default()) {
      unnamed_stream(device()).synchronize();
    } else {
      synchronize(stream, device());
    }
    return true;
  } catch (const std::exception& error) {
    report_once(error.what(), "; the memory is leaked rather than freed under running work");
    return false;
  }
}

void driver_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
  if (alignment == default_alignment) return give(stream, pointer, bytes);
  void* base = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = bases_.extract(pointer);
    if (found) base = found.mapped();
  }
  if (base != nullptr) {
    give(stream, base, with_room_to_align(bytes, alignment));
    if (free_correction::of(base)) free_correction::say(pointer, 0);  // who counts knows it by that address
    return;
  }
  free_correction::say(pointer, 0);
  report_once("a pointer was freed with an alignment of ", alignment,
              " that it was not allocated with, or twice; it is leaked");
}

}  // namespace cenote::inline v1
