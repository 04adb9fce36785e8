// A stream of our own.
#pragma once

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// It can be moved; one that was moved from is not valid and may only be assigned to or destroyed.
class cuda_stream {
 public:
  enum class kind : unsigned { sync_default = 0, non_blocking = 1 };  // CU_STREAM_DEFAULT, CU_STREAM_NON_BLOCKING

  /// On the current device.
  explicit cuda_stream(kind flags = kind::sync_default);
  explicit cuda_stream(int device, kind flags = kind::sync_default);
  ~cuda_stream();
  cuda_stream(cuda_stream&& other) noexcept;
  cuda_stream& operator=(cuda_stream&& other) noexcept;

  stream_ref view() const noexcept { return handle_; }
  operator stream_ref() const noexcept { return handle_; }
  CUstream_st* value() const noexcept { return handle_; }
  bool is_valid() const noexcept { return handle_ != nullptr; }
  int device() const noexcept { return device_; }

  /// Waits on the host for the work queued on it.
  void synchronize() const;

 private:
  CUstream_st* handle_ = nullptr;
  int device_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
