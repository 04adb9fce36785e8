#include "cenote/driver/stream_pool.hpp"

#include <new>
#include <stdexcept>

#include "cenote/driver/device.hpp"

namespace cenote::inline v1 {

cuda_stream_pool::cuda_stream_pool(std::size_t size, cuda_stream::kind flags)
    : cuda_stream_pool(current_device(), size, flags) {}

cuda_stream_pool::cuda_stream_pool(int device, std::size_t size, cuda_stream::kind flags) : device_(device) {
  if (size == 0) throw std::logic_error("a stream pool's size must be greater than zero");
  if (size > streams_.max_size()) throw std::bad_alloc();
  streams_.reserve(size);
  while (streams_.size() < size) streams_.push_back(std::make_shared<cuda_stream>(device, flags));
}

const std::shared_ptr<cuda_stream>& cuda_stream_pool::get_stream() noexcept {
  return get_stream(next_.fetch_add(1, std::memory_order_relaxed));
}

const std::shared_ptr<cuda_stream>& cuda_stream_pool::get_stream(std::size_t id) const noexcept {
  return streams_[id % streams_.size()];
}

}  // namespace cenote::inline v1
