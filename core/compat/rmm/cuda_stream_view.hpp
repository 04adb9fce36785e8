// A stream that somebody else owns.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cuda/stream_ref>
#include <rmm/detail/translated.hpp>

#include "cenote/cenote.hpp"

RMM_NAMESPACE_BEGIN

class cuda_stream_view {
 public:
  cuda_stream_view() = default;
  cuda_stream_view(int) = delete;
  cuda_stream_view(std::nullptr_t) = delete;
  cuda_stream_view(cudaStream_t stream) noexcept : stream_(stream) {}
  cuda_stream_view(cuda::stream_ref stream) noexcept : stream_(stream.get()) {}

  [[nodiscard]] cudaStream_t value() const noexcept { return stream_; }
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }
  operator cudaStream_t() const noexcept { return stream_; }
  operator cuda::stream_ref() const noexcept { return cuda::stream_ref(stream_); }

  [[nodiscard]] bool is_per_thread_default() const noexcept { return stream_ == cudaStreamPerThread; }
  [[nodiscard]] bool is_default() const noexcept { return stream_ == nullptr || stream_ == cudaStreamLegacy; }

  void synchronize() const {
    detail::translated([this] { cenote::synchronize(stream_, cenote::current_device()); });
  }
  void sync() const { synchronize(); }
  void synchronize_no_throw() const noexcept {
    try {
      synchronize();
    } catch (...) {  // as RMM's: whoever needs to know asks the driver
    }
  }

 private:
  cudaStream_t stream_ = nullptr;
};

static constexpr cuda::stream_ref cuda_stream_default{cudaStream_t{nullptr}};
static const cuda::stream_ref cuda_stream_legacy{cudaStream_t{cudaStreamLegacy}};
static const cuda::stream_ref cuda_stream_per_thread{cudaStream_t{cudaStreamPerThread}};

inline bool operator==(cuda_stream_view a, cuda_stream_view b) { return a.value() == b.value(); }
template <std::same_as<cuda::stream_ref> StreamRef>
bool operator==(cuda_stream_view a, const StreamRef& b) {
  return a.value() == b.get();
}

/// Writes the handle.
template <class Stream>
  requires requires(Stream& out, const void* pointer) { out << pointer; }
Stream& operator<<(Stream& out, cuda_stream_view stream) {
  out << static_cast<const void*>(stream.value());
  return out;
}

RMM_NAMESPACE_END
