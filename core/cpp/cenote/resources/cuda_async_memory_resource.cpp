#include "cenote/resources/cuda_async_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/resources/driver_alignment.hpp"

namespace cenote {

cuda_async_memory_resource::cuda_async_memory_resource() : cuda_async_memory_resource(options{}) {}

cuda_async_memory_resource::cuda_async_memory_resource(const options& wanted)
    : cuda_async_memory_resource(current_device(), wanted) {}

cuda_async_memory_resource::cuda_async_memory_resource(int device, const options& wanted)
    : memory_resource(device), options_(wanted), pool_(device, wanted.release_threshold, wanted.handles) {
  if (wanted.initial_pool_size == 0) return;
  // The driver's pool grows by being used once; the threshold keeps what it took.
  void* const first = allocate({}, wanted.initial_pool_size);
  deallocate({}, first, wanted.initial_pool_size);
}

std::string cuda_async_memory_resource::specification() const {
  const bool keeps_all = options_.release_threshold == options{}.release_threshold;
  return spell_specification(
      kind(), {options_.initial_pool_size == 0 ? "" : "initial=" + spell_bytes(options_.initial_pool_size),
               keeps_all ? "" : "release_threshold=" + spell_bytes(options_.release_threshold),
               options_.handles.posix_file_descriptor ? "ipc=true" : "", options_.handles.fabric ? "fabric=true" : ""});
}

memory_state cuda_async_memory_resource::state() const {
  memory_state figures = memory_resource::state();
  figures.in_use = pool_.used_bytes();
  figures.held = pool_.reserved_bytes();
  return figures;
}

std::size_t cuda_async_memory_resource::trim(std::size_t keep_bytes) {
  const std::size_t before = pool_.reserved_bytes();
  pool_.trim(keep_bytes);
  const std::size_t after = pool_.reserved_bytes();
  return before > after ? before - after : 0;
}

void* cuda_async_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  require_driver_alignment(*this, alignment);
  return pool_.allocate(stream, bytes);
}

void cuda_async_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t, std::size_t) noexcept {
  pool_.free(stream, pointer);
}

}  // namespace cenote
