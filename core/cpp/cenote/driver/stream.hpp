// Streams: a reference to anyone's, one of our own, and the identity by which memory is ordered.
//
// A stream's handle is no identity: the driver hands the handle value of a destroyed stream to the next one that is
// created (100 times out of 100, driver 580). stream_id is unique for the process. A stream that is being captured into
// a graph may not even be asked for its id (that ends the capture), so it goes by the id of its capture and its handle,
// which is its own as long as the capture lasts. Of a capture that was invalidated the driver tells no id either: until
// it has ended, its streams are nobody, and another nobody at each question.
//
// Rule: a user's stream is touched only inside a call that passes it. It may be gone at any other time, and the driver
// crashes on a dead handle.
//
// Cost: an id is 0 ns for the legacy default stream; for any other the driver is asked whether it is being captured
// (16 ns; not where captures are announced, capture.hpp) and, unless it is one of ours, for its id (27 ns; driver 580,
// H100).
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>

struct CUstream_st;

namespace cenote {

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

/// What memory is ordered by: one stream of the process for ever, or one stream's branch of a capture.
struct stream_id {
  std::uint64_t value = 0;              ///< the stream's id; of the capture while the stream is being captured
  const CUstream_st* branch = nullptr;  ///< which stream of that capture; null outside
  bool is_capturing() const noexcept { return branch != nullptr; }
  /// In a capture that was invalidated. The driver tells no id of it, so each answer is like no other.
  bool is_nobody() const noexcept { return is_capturing() && value >= first_nobody; }
  static constexpr std::uint64_t first_nobody = std::uint64_t{1} << 63;
  friend bool operator==(const stream_id&, const stream_id&) noexcept = default;
};

/// Ids that the driver gives out count up from small numbers; this one it does not reach.
inline constexpr stream_id legacy_default_id{~std::uint64_t{0}};

stream_id ask_who_it_is(stream_ref stream, int device);

/// The identity of `stream` on `device`. Legal at any time, also while it is being captured.
inline stream_id identify(stream_ref stream, int device) {
  return stream.is_legacy_default() ? legacy_default_id : ask_who_it_is(stream, device);
}

bool is_capturing(stream_ref stream, int device);

/// While it lives, what the calling thread asks of this stream is answered without the driver: for a call that passes
/// the stream on, after it has asked who it is.
class identified_scope {
 public:
  identified_scope(stream_ref stream, int device, stream_id id) noexcept;
  ~identified_scope();
  identified_scope(const identified_scope&) = delete;
  identified_scope& operator=(const identified_scope&) = delete;

 private:
  const identified_scope* outer_;
  stream_ref stream_;
  int device_;
  stream_id id_;

  friend const stream_id* known_from_scope(stream_ref stream, int device) noexcept;
};

/// While it lives, nothing is known by an identified_scope around it: for a call of the program's code, which may begin
/// or end a capture of that stream.
class unidentified_scope {
 public:
  unidentified_scope() noexcept;
  ~unidentified_scope();
  unidentified_scope(const unidentified_scope&) = delete;
  unidentified_scope& operator=(const unidentified_scope&) = delete;

 private:
  const identified_scope* outer_;
};

/// The device whose stream it is: `device` for the default streams, which are each device's own. Any other device is in
/// use by cenote from then on.
int device_of_stream(stream_ref stream, int device);

/// Throws std::invalid_argument if `stream` is another device's: an event over this one's work would not cover it.
void require_stream_of_device(stream_ref stream, int device);

/// False for the legacy default stream while a blocking stream of the device is being captured: naming it in any other
/// call would invalidate that capture.
bool accepts_work(stream_ref stream, int device);

/// Waits on the host for the work queued on `stream`.
void synchronize(stream_ref stream, int device);

/// Whether all work queued on `stream` is done. Never waits.
bool is_done(stream_ref stream, int device);

/// Work queued on `stream` from now on runs after `happened`. The device waits, the host does not.
void wait(stream_ref stream, const event& happened, int device);

/// A stream of our own. It can be moved; one that was moved from is not valid and may only be assigned to or destroyed.
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

}  // namespace cenote

template <>
struct std::hash<cenote::stream_id> {
  std::size_t operator()(const cenote::stream_id& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value) ^ std::hash<const void*>{}(id.branch);
  }
};
