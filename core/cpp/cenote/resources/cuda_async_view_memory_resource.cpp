#include "cenote/resources/cuda_async_view_memory_resource.hpp"

#include <stdexcept>

#include "cenote/driver/device.hpp"
#include "cenote/driver/peer_access.hpp"

namespace cenote::inline v1 {
namespace {

/// What the driver answers for the handle of a pool that was destroyed.
bool names_a_dead_handle(const cuda_error& error) {
  return error.name() == "CUDA_ERROR_INVALID_VALUE" || error.name() == "CUDA_ERROR_INVALID_HANDLE";
}

}  // namespace

pool_is_gone::pool_is_gone(const std::string& reason)
    : text_("out_of_memory: the driver's pool that 'async_view' takes its memory from has been destroyed (" + reason +
            "); keep the pool's owner alive, or make another resource current") {}

cuda_async_view_memory_resource::cuda_async_view_memory_resource(CUmemPoolHandle_st* pool)
    : cuda_async_view_memory_resource(current_device(), pool) {}

cuda_async_view_memory_resource::cuda_async_view_memory_resource(int device, CUmemPoolHandle_st* pool)
    : driver_pool_memory_resource(device), pool_(pool, device) {
  check_device(device);
  if (pool == nullptr) throw std::logic_error("the handle of a memory pool cannot be null");
}

cuda_async_view_memory_resource::cuda_async_view_memory_resource(int device, CUmemPoolHandle_st* pool,
                                                                 const peer_devices& peers)
    : cuda_async_view_memory_resource(device, pool) {
  open_view_to_peers(pool, device, peers);
}

void* cuda_async_view_memory_resource::take(stream_ref stream, std::size_t bytes) {
  try {
    return driver_pool_memory_resource::take(stream, bytes);
  } catch (const cuda_error& error) {
    if (names_a_dead_handle(error)) throw pool_is_gone(error.what());
    throw;
  }
}

memory_state cuda_async_view_memory_resource::state() const {
  try {
    return driver_pool_memory_resource::state();
  } catch (const cuda_error& error) {
    if (names_a_dead_handle(error)) return memory_resource::state();
    throw;
  }
}

}  // namespace cenote::inline v1
