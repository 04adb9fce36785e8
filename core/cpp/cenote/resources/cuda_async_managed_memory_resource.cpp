#include "cenote/resources/cuda_async_managed_memory_resource.hpp"

#include "cenote/driver/device.hpp"

namespace cenote::inline v1 {

cuda_async_managed_memory_resource::cuda_async_managed_memory_resource()
    : cuda_async_managed_memory_resource(current_device()) {}

cuda_async_managed_memory_resource::cuda_async_managed_memory_resource(int device)
    : driver_pool_memory_resource(device), pool_(device) {}

}  // namespace cenote::inline v1
