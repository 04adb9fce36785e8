// A stream that is owned.
#pragma once

#include <rmm/cuda_stream_view.hpp>

#include "cenote/driver/cuda_stream.hpp"

RMM_NAMESPACE_BEGIN

class cuda_stream {
 public:
  enum class flags : unsigned int { sync_default = cudaStreamDefault, non_blocking = cudaStreamNonBlocking };

  cuda_stream(flags kind = flags::sync_default)
      : stream_(
            detail::translated([kind] { return cenote::cuda_stream(static_cast<cenote::cuda_stream::kind>(kind)); })) {}
  cuda_stream(cuda_stream&&) = default;
  cuda_stream& operator=(cuda_stream&&) = default;
  cuda_stream(const cuda_stream&) = delete;
  cuda_stream& operator=(cuda_stream&) = delete;

  [[nodiscard]] bool is_valid() const { return stream_.is_valid(); }
  [[nodiscard]] cudaStream_t value() const { return stream_.value(); }
  explicit operator cudaStream_t() const noexcept { return stream_.value(); }
  [[nodiscard]] cuda_stream_view view() const { return cudaStream_t(stream_.value()); }
  operator cuda_stream_view() const { return view(); }
  operator cuda::stream_ref() const noexcept { return cuda::stream_ref(stream_.value()); }

  void synchronize() const {
    detail::translated([this] { stream_.synchronize(); });
  }
  void synchronize_no_throw() const noexcept { view().synchronize_no_throw(); }

 private:
  cenote::cuda_stream stream_;
};

RMM_NAMESPACE_END
