#include "cenote/driver/stream_ref.hpp"

#include <stdexcept>
#include <string>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/stream_scope.hpp"

namespace cenote::inline v1 {

int device_of_stream(stream_ref stream, int device) {
  if (stream.is_legacy_default() || stream.is_per_thread_default()) return device;
  CUcontext context = nullptr;
  CENOTE_DRIVER_CALL(cuStreamGetCtx, stream.value(), &context);
  CENOTE_DRIVER_CALL(cuCtxPushCurrent, context);
  CUdevice its_device = 0;
  const CUresult result = driver().cuCtxGetDevice(&its_device);
  CENOTE_DRIVER_CALL(cuCtxPopCurrent, &context);
  check_driver("cuCtxGetDevice", result);
  if (its_device != device) const device_scope used(its_device);
  return its_device;
}

void require_stream_of_device(stream_ref stream, int device) {
  const int its_device = device_of_stream(stream, device);
  if (its_device == device) return;
  throw std::invalid_argument("a stream of device " + std::to_string(its_device) + " cannot order memory of device " +
                              std::to_string(device) + ": use a stream of device " + std::to_string(device));
}

bool accepts_work(stream_ref stream, int device) {
  if (!stream.is_legacy_default()) return true;
  const device_scope scope(device);
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult result = driver().cuStreamIsCapturing(stream.value(), &status);  // asking is harmless
  if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) return false;
  check_driver("cuStreamIsCapturing", result);
  return true;
}

void stream_ref::synchronize() const { cenote::synchronize(*this, current_device()); }

void synchronize(stream_ref stream, int device) {
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  CENOTE_DRIVER_CALL(cuStreamSynchronize, stream.value());
}

bool is_done(stream_ref stream, int device) {
  const device_scope scope(device);
  const relaxed_capture_scope relaxed;
  const CUresult result = driver().cuStreamQuery(stream.value());
  if (result == CUDA_ERROR_NOT_READY) return false;
  check_driver("cuStreamQuery", result);
  return true;
}

void wait(stream_ref stream, const event& happened, int device) {
  const stream_scope scope(stream, device);
  CENOTE_DRIVER_CALL(cuStreamWaitEvent, stream.value(), happened.value(), CU_EVENT_WAIT_DEFAULT);
}

}  // namespace cenote::inline v1
