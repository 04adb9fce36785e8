#include "cenote/surface/captures.hpp"

#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/surface/reclaimer.hpp"

namespace cenote::inline v1 {

void begin_capture(int device) {
  check_device(device);
  capture_begins(device);
}

void end_capture(int device) {
  check_device(device);
  if (capture_ended(device)) reclaimer::free_pending_on_every_device();
}

void begin_capture_into(int device, graph_pool::number pool, stream_ref stream) {
  check_device(device);
  graph_pool::begin(device, pool, stream);
  capture_begins(device);
}

void begin_capture_into(int device, graph_pool::number pool, graph_pool::filter takes) {
  check_device(device);
  graph_pool::begin(device, pool, std::move(takes));
  capture_begins(device);
}

void end_capture_into(int device, graph_pool::number pool) {
  check_device(device);
  if (graph_pool::end(device, pool)) return capture_goes_on(device);
  end_capture(device);
}

void release_graph_pool(int device, graph_pool::number pool) { graph_pool::release(device, pool); }

}  // namespace cenote::inline v1
