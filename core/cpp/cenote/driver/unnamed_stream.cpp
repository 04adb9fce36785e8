#include "cenote/driver/unnamed_stream.hpp"

#include "cenote/driver/event.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1 {

namespace {

/// One of our own is right in any case, so that a question which fails fails nothing.
bool legacy_stream_accepts_work(int device) {
  try {
    return accepts_work({}, device);
  } catch (const cuda_error& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace

unnamed_stream::unnamed_stream(int device) : device_(device) {
  if (!legacy_stream_accepts_work(device)) own_.emplace(device, cuda_stream::kind::sync_default);
}

void unnamed_stream::synchronize() const {
  if (!own_) return cenote::synchronize(stream_ref{}, device_);
  event::record(own_->view(), device_)->synchronize();
}

}  // namespace cenote::inline v1
