#include "cenote/driver/cuda_stream.hpp"

#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/own_streams.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

cuda_stream::cuda_stream(kind flags) : cuda_stream(current_device(), flags) {}

cuda_stream::cuda_stream(int device, kind flags) : device_(device) {
  const device_scope scope(device);
  CENOTE_DRIVER_CALL(cuStreamCreate, &handle_, static_cast<unsigned>(flags));
  unsigned long long id = 0;
  if (driver().cuStreamGetId(handle_, &id) == CUDA_SUCCESS) own_streams::insert(handle_, id);  // else it is asked again
}

cuda_stream::~cuda_stream() {
  if (handle_ == nullptr || driver_is_gone()) return;
  own_streams::remove(handle_);
  report_driver_failure("cuStreamDestroy", driver().cuStreamDestroy(handle_));
}

cuda_stream::cuda_stream(cuda_stream&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), device_(other.device_) {}

cuda_stream& cuda_stream::operator=(cuda_stream&& other) noexcept {
  cuda_stream taken(std::move(other));  // which leaves this one where it is if it is `other`
  std::swap(handle_, taken.handle_);
  std::swap(device_, taken.device_);
  return *this;
}

void cuda_stream::synchronize() const { cenote::synchronize(view(), device_); }

}  // namespace cenote::inline v1
