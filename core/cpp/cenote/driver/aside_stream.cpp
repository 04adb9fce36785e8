#include "cenote/driver/aside_stream.hpp"

#include <array>
#include <atomic>
#include <memory>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"

namespace cenote::inline v1 {
namespace {

constinit std::array<std::atomic<cuda_stream*>, max_devices> streams{};

}  // namespace

stream_ref aside_stream(int device) {
  auto& place = streams.at(static_cast<std::size_t>(device));
  if (const cuda_stream* const made = place.load(std::memory_order_acquire)) return made->view();
  auto fresh = std::make_unique<cuda_stream>(device, cuda_stream::kind::non_blocking);
  cuda_stream* present = nullptr;
  if (place.compare_exchange_strong(present, fresh.get(), std::memory_order_acq_rel)) present = fresh.release();
  return present->view();
}

stream_ref aside_stream_after(stream_ref other, int device) {
  const stream_ref aside = aside_stream(device);
  wait(aside, *event::record_anywhere(other, device), device);
  return aside;
}

}  // namespace cenote::inline v1
