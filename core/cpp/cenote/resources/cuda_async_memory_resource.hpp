// A pool of the driver's own (cuMemAllocFromPoolAsync), stream-ordered and owned by this resource.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_pool_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class cuda_async_memory_resource final : public driver_pool_memory_resource {
 public:
  struct options {
    std::size_t initial_pool_size = 0;  ///< bytes that the pool holds from the start
    std::uint64_t release_threshold = std::numeric_limits<std::uint64_t>::max();  ///< bytes kept at a synchronisation
    export_handles handles{};
    peer_devices peers{};  ///< which other devices may use the memory: those in use, unless others are named
  };

  /// On the current device, or on `device`.
  cuda_async_memory_resource();
  explicit cuda_async_memory_resource(const options& wanted);
  cuda_async_memory_resource(int device, const options& wanted);

  std::string kind() const override { return "async"; }
  std::string specification() const override;
  CUmemPoolHandle_st* pool_handle() const noexcept override { return pool_.share(); }
  bool is_host_accessible() const noexcept override { return false; }

 private:
  memory_pool_ref pool() const noexcept override { return pool_.view(); }

  options options_;
  memory_pool pool_;  // lives as long as this resource: so does the handle
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
