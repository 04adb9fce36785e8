#include "cenote/driver/event.hpp"

#include <cstring>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/stream_scope.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

event::event(int device, unsigned flags) : device_(device) {
  const device_scope scope(device);
  CENOTE_DRIVER_CALL(cuEventCreate, &handle_, CU_EVENT_DISABLE_TIMING | flags);
}

event::~event() {
  if (handle_ == nullptr || driver_is_gone()) return;
  report_driver_failure("cuEventDestroy", driver().cuEventDestroy(handle_));
}

std::shared_ptr<event> event::record(stream_ref stream, int device) {
  const device_scope scope(device);
  std::shared_ptr<event> recorded(new event(device));
  CENOTE_DRIVER_CALL(cuEventRecord, recorded->handle_, stream.value());
  return recorded;
}

std::shared_ptr<event> event::record_anywhere(stream_ref stream, int device) {
  return record(stream, device_of_stream(stream, device));  // an event is of one context, and of that stream's
}

std::shared_ptr<event> event::record_for_others(stream_ref stream, int device) {
  const int its_device = device_of_stream(stream, device);
  const device_scope scope(its_device);
  std::shared_ptr<event> recorded(new event(its_device, CU_EVENT_INTERPROCESS));
  CENOTE_DRIVER_CALL(cuEventRecord, recorded->handle_, stream.value());
  return recorded;
}

std::shared_ptr<event> event::open(const event_handle& handle, int device) {
  CUipcEventHandle spelled{};
  static_assert(sizeof(spelled.reserved) == sizeof(handle));
  std::memcpy(spelled.reserved, handle.data(), handle.size());
  const device_scope scope(device);
  std::shared_ptr<event> opened(new event);
  opened->device_ = device;
  CENOTE_DRIVER_CALL(cuIpcOpenEventHandle, &opened->handle_, spelled);
  return opened;
}

event_handle event::handle() const {
  const device_scope scope(device_);  // the driver takes it from the calling thread's context alone
  CUipcEventHandle spelled{};
  CENOTE_DRIVER_CALL(cuIpcGetEventHandle, &spelled, handle_);
  event_handle handle{};
  std::memcpy(handle.data(), spelled.reserved, handle.size());
  return handle;
}

void event::record_again(stream_ref stream, int device) {
  const stream_scope scope(stream, device);
  CENOTE_DRIVER_CALL(cuEventRecord, handle_, stream.value());
}

std::shared_ptr<event> event::record_context(int device) {
  if (driver().cuCtxRecordEvent == nullptr) return nullptr;
  const device_scope scope(device);
  std::shared_ptr<event> recorded(new event(device));
  check_driver_beside_captures("cuCtxRecordEvent", driver().cuCtxRecordEvent(scope.context(), recorded->handle_));
  return recorded;
}

bool event::is_complete() const {
  const relaxed_capture_scope relaxed;
  const CUresult result = driver().cuEventQuery(handle_);
  if (result == CUDA_ERROR_NOT_READY) return false;
  check_driver("cuEventQuery", result);
  return true;
}

void event::synchronize() const {
  const relaxed_capture_scope relaxed;
  CENOTE_DRIVER_CALL(cuEventSynchronize, handle_);
}

void order_after(stream_ref later, stream_ref earlier, int device) {
  if (later != earlier) wait(later, *event::record_anywhere(earlier, device), device);
}

void wait_for_all_work(stream_ref stream, int device) { wait_for_all_work_of(device, stream, device); }

void wait_for_all_work_of(int other, stream_ref stream, int device) {
  if (const auto all_work = event::record_context(other)) {
    wait(stream, *all_work, device);
  } else {
    synchronize_device(other);
  }
}

}  // namespace cenote::inline v1
