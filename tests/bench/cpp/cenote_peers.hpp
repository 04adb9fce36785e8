// cenote's resources, and two calls of the driver as the floor of a hand-over between streams.
#pragma once

#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/cuda_stream.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "peer.hpp"

namespace bench {

class cenote_peer {
 public:
  static constexpr bool on_device = true;
  static constexpr bool forgets = false;

  class own_stream {
   public:
    CUstream handle() const noexcept { return stream_.value(); }

   private:
    cenote::cuda_stream stream_{cenote::cuda_stream::kind::non_blocking};
  };

  /// `pool` is that of the stack whose counters are read, if there is one.
  explicit cenote_peer(std::shared_ptr<cenote::memory_resource> resource,
                       std::shared_ptr<const cenote::pool_memory_resource> pool = nullptr)
      : resource_(std::move(resource)), pool_(std::move(pool)) {}

  void* allocate(CUstream stream, std::size_t bytes) { return resource_->allocate(stream, bytes); }
  void deallocate(CUstream stream, void* pointer, std::size_t bytes) noexcept {
    resource_->deallocate(stream, pointer, bytes);
  }

  counts counters() const {
    if (!pool_) return {};
    const cenote::pool_counters now = pool_->counters();
    return {{"events", static_cast<double>(now.events)}, {"waits", static_cast<double>(now.waits)}};
  }

  bool trim() {
    resource_->trim();
    return true;
  }

 private:
  std::shared_ptr<cenote::memory_resource> resource_;
  std::shared_ptr<const cenote::pool_memory_resource> pool_;
};

inline std::shared_ptr<cenote::pool_memory_resource> cenote_pool(room wanted) {
  return std::make_shared<cenote::pool_memory_resource>(std::make_shared<cenote::virtual_memory_resource>(),
                                                        wanted.initial, wanted.maximum);
}

inline std::unique_ptr<cenote_peer> make_cenote_chunks(room wanted) {
  const auto pool = std::make_shared<cenote::pool_memory_resource>(std::make_shared<cenote::cuda_memory_resource>(),
                                                                   wanted.initial, wanted.maximum);
  return std::make_unique<cenote_peer>(pool, pool);
}

inline std::unique_ptr<cenote_peer> make_cenote_pool(room wanted) {
  const auto pool = cenote_pool(wanted);
  return std::make_unique<cenote_peer>(pool, pool);
}

/// The promise is the process's: it is given here, and every other peer is made without it.
inline std::unique_ptr<cenote_peer> make_cenote_announced(room wanted) {
  cenote::promise_announced_captures(true);
  return make_cenote_pool(wanted);
}

/// As `make`, where nobody has promised anything.
inline maker<cenote_peer> without_promise(std::unique_ptr<cenote_peer> (*make)(room)) {
  return [make](room wanted) {
    cenote::promise_announced_captures(false);
    return make(wanted);
  };
}

inline std::unique_ptr<cenote_peer> make_cenote_arena(room wanted) {
  const auto arena =
      std::make_shared<cenote::arena_memory_resource>(std::make_shared<cenote::cuda_memory_resource>(), wanted.initial);
  return std::make_unique<cenote_peer>(arena,
                                       std::shared_ptr<const cenote::pool_memory_resource>(arena, &arena->pool()));
}

inline std::unique_ptr<cenote_peer> make_cenote_statistics(room wanted) {
  const auto pool = cenote_pool(wanted);
  return std::make_unique<cenote_peer>(std::make_shared<cenote::statistics_resource_adaptor>(pool), pool);
}

/// With a limit that nothing comes near.
inline std::unique_ptr<cenote_peer> make_cenote_limiting(room wanted) {
  const auto pool = cenote_pool(wanted);
  return std::make_unique<cenote_peer>(std::make_shared<cenote::limiting_resource_adaptor>(pool, wanted.initial), pool);
}

/// With RMM's bins: 2^18 to 2^22 bytes.
inline std::unique_ptr<cenote_peer> make_cenote_binning(room wanted) {
  const auto pool = cenote_pool(wanted);
  return std::make_unique<cenote_peer>(std::make_shared<cenote::binning_memory_resource>(pool, 18, 22), pool);
}

/// cuMemAllocAsync from a pool of its own that keeps everything.
inline std::unique_ptr<cenote_peer> make_cenote_async(room wanted) {
  return std::make_unique<cenote_peer>(std::make_shared<cenote::cuda_async_memory_resource>(
      cenote::cuda_async_memory_resource::options{.initial_pool_size = wanted.initial, .handles = {}}));
}

/// No allocator: a free records an event on its stream, an allocation waits for it on its own.
class record_and_wait_peer {
 public:
  static constexpr bool on_device = true;
  static constexpr bool forgets = true;
  using own_stream = foreign_stream;

  void* allocate(CUstream stream, std::size_t) {
    calls_.cuStreamWaitEvent(stream, freed_.handle(), 0);
    return this;
  }
  void deallocate(CUstream stream, void*, std::size_t) noexcept { calls_.cuEventRecord(freed_.handle(), stream); }
  counts counters() const { return {}; }
  bool trim() { return false; }

 private:
  const driver_table& calls_ = driver();
  event freed_;
};

}  // namespace bench
