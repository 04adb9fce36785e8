// A pool of the driver's own (cuMemAllocFromPoolAsync), stream-ordered and owned by this resource.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "cenote/driver/memory_pool.hpp"
#include "cenote/memory_resource.hpp"

namespace cenote {

class cuda_async_memory_resource final : public memory_resource {
 public:
  struct options {
    std::size_t initial_pool_size = 0;  ///< bytes that the pool holds from the start
    std::uint64_t release_threshold = std::numeric_limits<std::uint64_t>::max();  ///< bytes kept at a synchronisation
    export_handles handles;
  };

  /// On the current device, or on `device`.
  cuda_async_memory_resource();
  explicit cuda_async_memory_resource(const options& wanted);
  cuda_async_memory_resource(int device, const options& wanted);

  /// The driver's CUmemoryPool, to be given to other libraries; it lives as long as this resource.
  CUmemPoolHandle_st* pool_handle() const noexcept { return pool_.value(); }

  std::string kind() const override { return "async"; }
  std::string specification() const override;
  memory_state state() const override;
  std::size_t trim(std::size_t keep_bytes = 0) override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept override;

  options options_;
  mutable memory_pool pool_;
};

}  // namespace cenote
