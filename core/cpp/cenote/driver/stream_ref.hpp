// A reference to anyone's stream, and what is done with one: the driver's own handle, as a value.
//
// Rule: a user's stream is touched only inside a call that passes it. It may be gone at any other time, and the driver
// crashes on a dead handle. A handle is no identity either (stream_id.hpp).
#pragma once

#include <concepts>
#include <cstdint>

struct CUstream_st;

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class event;

/// A stream that somebody else owns: the driver's own handle, as a value.
class stream_ref {
 public:
  constexpr stream_ref() noexcept = default;
  constexpr stream_ref(CUstream_st* handle) noexcept : handle_(handle) {}  // implicit: it is the same thing

  /// Of another library's reference that wraps the handle, as cuda::stream_ref does.
  template <class Reference>
    requires std::same_as<typename Reference::value_type, CUstream_st*> && requires(const Reference& other) {
      { other.get() } -> std::same_as<CUstream_st*>;
    }
  constexpr stream_ref(const Reference& other) noexcept : handle_(other.get()) {}

  CUstream_st* value() const noexcept { return handle_; }

  /// Waits on the host for the work queued on it; of a default stream, for that of the current device.
  void synchronize() const;

  /// The legacy default stream: handle 0, or CU_STREAM_LEGACY (1).
  bool is_legacy_default() const noexcept { return reinterpret_cast<std::uintptr_t>(handle_) <= 1; }
  bool is_per_thread_default() const noexcept { return reinterpret_cast<std::uintptr_t>(handle_) == 2; }

  friend bool operator==(stream_ref a, stream_ref b) noexcept { return a.handle_ == b.handle_; }

 private:
  CUstream_st* handle_ = nullptr;
};

/// The stream that each device's blocking streams are ordered with.
inline stream_ref legacy_default_stream() noexcept { return reinterpret_cast<CUstream_st*>(1); }  // CU_STREAM_LEGACY

/// The calling thread's own stream of each device; it is another one on another thread.
inline stream_ref per_thread_default_stream() noexcept { return reinterpret_cast<CUstream_st*>(2); }

/// The stream that a kernel launched without one runs on, in the file that is compiled: as nvcc, this follows
/// CUDA_API_PER_THREAD_DEFAULT_STREAM. The namespaces are there because one program may hold files of both kinds.
#ifdef CUDA_API_PER_THREAD_DEFAULT_STREAM
inline namespace per_thread {
inline stream_ref default_stream() noexcept { return per_thread_default_stream(); }
}  // namespace per_thread
#else
inline namespace legacy {
inline stream_ref default_stream() noexcept { return legacy_default_stream(); }
}  // namespace legacy
#endif

/// The device whose stream it is: `device` for the default streams, which are each device's own. Any other device is in
/// use by cenote from then on.
CENOTE_EXPORT int device_of_stream(stream_ref stream, int device);

/// Throws std::invalid_argument if `stream` is another device's: an event over this one's work would not cover it.
CENOTE_EXPORT void require_stream_of_device(stream_ref stream, int device);

/// False for the legacy default stream while a blocking stream of the device is being captured: naming it in any other
/// call would invalidate that capture.
CENOTE_EXPORT bool accepts_work(stream_ref stream, int device);

/// Waits on the host for the work queued on `stream`.
CENOTE_EXPORT void synchronize(stream_ref stream, int device);

/// Whether all work queued on `stream` is done. Never waits.
CENOTE_EXPORT bool is_done(stream_ref stream, int device);

/// Work queued on `stream` from now on runs after `happened`. The device waits, the host does not.
CENOTE_EXPORT void wait(stream_ref stream, const event& happened, int device);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
