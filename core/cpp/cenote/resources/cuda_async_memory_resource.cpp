#include "cenote/resources/cuda_async_memory_resource.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/unnamed_stream.hpp"

namespace cenote::inline v1 {

cuda_async_memory_resource::cuda_async_memory_resource() : cuda_async_memory_resource(options{}) {}

cuda_async_memory_resource::cuda_async_memory_resource(const options& wanted)
    : cuda_async_memory_resource(current_device(), wanted) {}

cuda_async_memory_resource::cuda_async_memory_resource(int device, const options& wanted)
    : driver_pool_memory_resource(device),
      options_(wanted),
      pool_(device, wanted.release_threshold, wanted.handles, wanted.peers) {
  if (wanted.initial_pool_size == 0) return;
  // The driver's pool grows by being used once; the threshold keeps what it took.
  const unnamed_stream stream(device);
  void* const first = allocate(stream.view(), wanted.initial_pool_size);
  deallocate(stream.view(), first, wanted.initial_pool_size);
}

std::string cuda_async_memory_resource::specification() const {
  const bool keeps_all = options_.release_threshold == options{}.release_threshold;
  const std::string peers = spell_peers(options_.peers);
  return spell_specification(
      kind(), {options_.initial_pool_size == 0 ? "" : "initial=" + spell_bytes(options_.initial_pool_size),
               keeps_all ? "" : "release_threshold=" + spell_bytes(options_.release_threshold),
               options_.handles.posix_file_descriptor ? "ipc=true" : "", options_.handles.fabric ? "fabric=true" : "",
               peers.empty() ? "" : "peers=" + peers});
}

}  // namespace cenote::inline v1
