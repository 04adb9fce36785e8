// A fixed set of streams, handed out in turn.
#pragma once

#include <cstddef>
#include <rmm/cuda_stream.hpp>

#include "cenote/driver/stream_pool.hpp"

RMM_NAMESPACE_BEGIN

class cuda_stream_pool {
 public:
  static constexpr std::size_t default_size{16};

  explicit cuda_stream_pool(std::size_t pool_size = default_size,
                            cuda_stream::flags flags = cuda_stream::flags::sync_default)
      : pool_(pool_size, static_cast<cenote::cuda_stream::kind>(flags)) {}
  cuda_stream_pool(const cuda_stream_pool&) = delete;
  cuda_stream_pool& operator=(const cuda_stream_pool&) = delete;

  cuda::stream_ref get_stream() const noexcept { return cuda::stream_ref(pool_.get_stream()->value()); }
  cuda::stream_ref get_stream(std::size_t stream_id) const {
    return cuda::stream_ref(pool_.get_stream(stream_id)->value());
  }
  std::size_t get_pool_size() const noexcept { return pool_.size(); }

 private:
  mutable cenote::cuda_stream_pool pool_;
};

RMM_NAMESPACE_END
