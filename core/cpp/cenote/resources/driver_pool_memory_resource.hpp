// Memory from a pool of the driver (cuMemAllocFromPoolAsync), stream-ordered. Who owns the pool, and what its memory
// is, say the classes that derive from this one.
#pragma once

#include "cenote/driver/memory_pool.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class driver_pool_memory_resource : public driver_memory_resource {
 public:
  /// The driver's CUmemoryPool, to be given to other libraries.
  virtual CUmemPoolHandle_st* pool_handle() const noexcept { return pool().value(); }

  memory_state state() const override;
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override;

 protected:
  using driver_memory_resource::driver_memory_resource;
  void* take(stream_ref stream, std::size_t bytes) override { return pool().allocate(stream, bytes); }

 private:
  virtual memory_pool_ref pool() const noexcept = 0;
  void give(stream_ref stream, void* pointer, std::size_t) noexcept override { pool().free(stream, pointer); }
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
