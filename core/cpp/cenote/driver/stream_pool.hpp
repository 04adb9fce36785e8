// A fixed number of streams of our own, handed out in turn.
//
// For work that has no stream of its own and should not queue up behind that of others. Streams are made with the pool,
// never later, because making one is slow; a caller may get one that others use as well.
//
// Threads: all functions from any thread; there is no lock.
// Cost: getting a stream is one atomic increment.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class cuda_stream_pool {
 public:
  static constexpr std::size_t default_size = 16;

  /// On the current device. Throws std::logic_error if `size` is 0.
  explicit cuda_stream_pool(std::size_t size = default_size, cuda_stream::kind flags = cuda_stream::kind::sync_default);
  cuda_stream_pool(int device, std::size_t size, cuda_stream::kind flags = cuda_stream::kind::sync_default);

  /// The next stream, round robin. It lives as long as the pool, or as anyone who holds it.
  const std::shared_ptr<cuda_stream>& get_stream() noexcept;

  /// Stream `id` modulo size().
  const std::shared_ptr<cuda_stream>& get_stream(std::size_t id) const noexcept;

  std::size_t size() const noexcept { return streams_.size(); }
  int device() const noexcept { return device_; }

 private:
  int device_;
  std::vector<std::shared_ptr<cuda_stream>> streams_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
