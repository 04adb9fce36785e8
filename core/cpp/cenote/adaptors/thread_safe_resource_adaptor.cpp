#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"

#include "cenote/driver/capture.hpp"

namespace cenote::inline v1 {

memory_state thread_safe_resource_adaptor::state() const {
  const std::lock_guard lock(mutex_);
  return next().state();
}

std::size_t thread_safe_resource_adaptor::trim(std::size_t keep_bytes, bool wait) {
  if (wait) synchronize_beside_captures(device());
  const std::lock_guard lock(mutex_);
  return next().trim(keep_bytes);
}

void thread_safe_resource_adaptor::check() const {
  const std::lock_guard lock(mutex_);
  next().check();
}

void* thread_safe_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const std::lock_guard lock(mutex_);
  return pass_on(stream, bytes, alignment);
}

void thread_safe_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                 std::size_t alignment) {
  const std::lock_guard lock(mutex_);
  pass_on(stream, pointer, bytes, alignment);
}

}  // namespace cenote::inline v1
