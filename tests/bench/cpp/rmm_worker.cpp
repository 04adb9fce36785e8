// The worker for RMM's resources, built from the headers and the library of its wheel.
#include <cuda_runtime_api.h>

#include <rmm/cuda_stream.hpp>
#include <rmm/mr/arena_memory_resource.hpp>
#include <rmm/mr/binning_memory_resource.hpp>
#include <rmm/mr/cuda_async_memory_resource.hpp>
#include <rmm/mr/cuda_memory_resource.hpp>
#include <rmm/mr/pool_memory_resource.hpp>
#include <rmm/version_config.hpp>
#include <utility>

#include "offer.hpp"

namespace bench {
namespace {

const std::string version = "librmm " + std::to_string(RMM_VERSION_MAJOR) + "." + std::to_string(RMM_VERSION_MINOR) +
                            "." + std::to_string(RMM_VERSION_PATCH);

class rmm_stream {
 public:
  CUstream handle() const noexcept { return stream_.value(); }

 private:
  rmm::cuda_stream stream_{rmm::cuda_stream::flags::non_blocking};
};

/// Whether a resource can be destroyed with blocks in use: RMM's own pools can, the driver's pool cannot.
template <class Resource>
constexpr bool forgets_blocks = !std::is_same_v<Resource, rmm::mr::cuda_async_memory_resource>;

template <class Resource>
class rmm_peer {
 public:
  static constexpr bool on_device = true;
  static constexpr bool forgets = forgets_blocks<Resource>;
  using own_stream = rmm_stream;

  template <class... Arguments>
  explicit rmm_peer(Arguments&&... arguments) : resource_(std::forward<Arguments>(arguments)...) {}

  void* allocate(CUstream stream, std::size_t bytes) {
    return resource_.allocate(cuda::stream_ref{stream}, bytes, alignment);
  }
  void deallocate(CUstream stream, void* pointer, std::size_t bytes) noexcept {
    resource_.deallocate(cuda::stream_ref{stream}, pointer, bytes, alignment);
  }
  counts counters() const { return {}; }

  bool trim() {
    if constexpr (std::is_same_v<Resource, rmm::mr::cuda_async_memory_resource>)
      return cudaMemPoolTrimTo(resource_.pool_handle(), 0) == cudaSuccess;
    return false;
  }

 private:
  static constexpr std::size_t alignment = 256;
  Resource resource_;
};

using pool_peer = rmm_peer<rmm::mr::pool_memory_resource>;
using arena_peer = rmm_peer<rmm::mr::arena_memory_resource>;
using binning_peer = rmm_peer<rmm::mr::binning_memory_resource>;
using async_peer = rmm_peer<rmm::mr::cuda_async_memory_resource>;

rmm::mr::pool_memory_resource pool(room wanted) {
  return rmm::mr::pool_memory_resource{rmm::mr::cuda_memory_resource{}, wanted.initial, wanted.maximum};
}

std::unique_ptr<pool_peer> make_pool(room wanted) {
  return std::make_unique<pool_peer>(rmm::mr::cuda_memory_resource{}, wanted.initial, wanted.maximum);
}

std::unique_ptr<arena_peer> make_arena(room wanted) {
  return std::make_unique<arena_peer>(rmm::mr::cuda_memory_resource{}, wanted.initial);
}

std::unique_ptr<binning_peer> make_binning(room wanted) {
  return std::make_unique<binning_peer>(pool(wanted), std::int8_t{18}, std::int8_t{22});
}

std::unique_ptr<async_peer> make_async(room wanted) {
  return std::make_unique<async_peer>(wanted.initial, std::numeric_limits<std::size_t>::max());
}

}  // namespace
}  // namespace bench

int main() {
  using namespace bench;
  worker serving("rmm");
  offer<pool_peer>(serving, "rmm-pool", version, make_pool);
  offer<arena_peer>(serving, "rmm-arena", version, make_arena);
  offer<binning_peer>(serving, "rmm-binning", version, make_binning);
  offer<async_peer>(serving, "rmm-async", version, make_async);
  return serving.serve();
}
