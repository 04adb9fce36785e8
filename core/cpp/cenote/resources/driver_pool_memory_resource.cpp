#include "cenote/resources/driver_pool_memory_resource.hpp"

#include "cenote/driver/capture.hpp"
#include "cenote/driver/nvtx.hpp"

namespace cenote::inline v1 {

memory_state driver_pool_memory_resource::state() const {
  memory_state figures = memory_resource::state();
  figures.in_use = pool().used_bytes();
  figures.held = pool().reserved_bytes();
  return figures;
}

std::size_t driver_pool_memory_resource::trim(std::size_t keep_bytes, bool wait) {
  const nvtx::trim_range range(keep_bytes);
  if (wait) synchronize_beside_captures(device());
  const std::size_t before = pool().reserved_bytes();
  pool().trim(keep_bytes);
  const std::size_t after = pool().reserved_bytes();
  return before > after ? before - after : 0;
}

}  // namespace cenote::inline v1
