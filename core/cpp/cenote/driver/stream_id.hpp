// The identity of a stream, by which memory is ordered.
//
// A stream's handle is no identity: the driver hands the handle value of a destroyed stream to the next one that is
// created (100 times out of 100, driver 580). stream_id is unique for the process. A stream that is being captured into
// a graph may not even be asked for its id (that ends the capture), so it goes by the id of its capture and its handle,
// which is its own as long as the capture lasts. Of a capture that was invalidated the driver tells no id either: until
// it has ended, its streams are nobody, and another nobody at each question.
//
// Cost: an id is 0 ns for the legacy default stream; for any other the driver is asked whether it is being captured
// (16 ns; not where captures are announced, capture.hpp) and, unless it is one of ours, for its id (27 ns; driver 580,
// H100).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

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

CENOTE_EXPORT stream_id ask_who_it_is(stream_ref stream, int device);

/// The identity of `stream` on `device`. Legal at any time, also while it is being captured.
inline stream_id identify(stream_ref stream, int device) {
  return stream.is_legacy_default() ? legacy_default_id : ask_who_it_is(stream, device);
}

CENOTE_EXPORT bool is_capturing(stream_ref stream, int device);

/// While it lives, what the calling thread asks of this stream is answered without the driver: for a call that passes
/// the stream on, after it has asked who it is.
class [[gnu::visibility("hidden")]] identified_scope {
 public:
  identified_scope(stream_ref stream, int device, stream_id id) noexcept
      : outer_(std::exchange(innermost_, this)), stream_(stream), device_(device), id_(id) {}
  ~identified_scope() { innermost_ = outer_; }
  identified_scope(const identified_scope&) = delete;
  identified_scope& operator=(const identified_scope&) = delete;

 private:
  const identified_scope* outer_;
  stream_ref stream_;
  int device_;
  stream_id id_;

  /// What the innermost scope says of a stream; null where it speaks of another.
  static const stream_id* find(stream_ref stream, int device) noexcept {
    const bool is_known = innermost_ != nullptr && innermost_->stream_ == stream && innermost_->device_ == device;
    return is_known ? &innermost_->id_ : nullptr;
  }

  /// Initial-exec, as it is read at every allocation on a stream, and takes the room of one pointer.
  [[gnu::tls_model("initial-exec")]] static constinit thread_local const identified_scope* innermost_;

  friend class unidentified_scope;
  friend stream_id ask_who_it_is(stream_ref stream, int device);
  friend bool is_capturing(stream_ref stream, int device);
};

/// While it lives, nothing is known by an identified_scope around it: for a call of the program's code, which may begin
/// or end a capture of that stream.
class [[gnu::visibility("hidden")]] unidentified_scope {
 public:
  unidentified_scope() noexcept : outer_(std::exchange(identified_scope::innermost_, nullptr)) {}
  ~unidentified_scope() { identified_scope::innermost_ = outer_; }
  unidentified_scope(const unidentified_scope&) = delete;
  unidentified_scope& operator=(const unidentified_scope&) = delete;

 private:
  const identified_scope* outer_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote

template <>
struct std::hash<cenote::stream_id> {
  std::size_t operator()(const cenote::stream_id& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value) ^ std::hash<const void*>{}(id.branch);
  }
};
