#include "sim/device/context.hpp"

#include <utility>

#include "sim/device/device.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/failure.hpp"

namespace cenote::sim {

primary_context::primary_context(simulated_device& device)
    : device(device), marks(std::make_shared<work_queue>(queue_kind::marks, /*id=*/0, busy)) {}

queue_points primary_context::all_work() const { return ends_of(busy.all); }

queue_point primary_context::mark() {
  if (busy.new_to_marks.empty()) {
    return marks->end();
  }
  queue_points points = ends_of(busy.new_to_marks);
  busy.new_to_marks.clear();
  return marks->push({.after = std::move(points), .action = nullptr});
}

primary_context& current_context() {
  primary_context* const context = this_thread().current();
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  require(context->retained > 0 && context->device.present, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  return *context;
}

primary_context& context_of(CUcontext handle) {
  for (const auto& device : devices()) {
    if (device->context.handle() == handle) {
      return device->context;
    }
  }
  fail(CUDA_ERROR_INVALID_CONTEXT);
}

}  // namespace cenote::sim
