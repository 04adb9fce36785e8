// Keeps the answer to the question who a stream is, so that calls within the present one do not ask the driver again.
//
// Threads: each has its own. Cost: a thread-local read for a question, and two for a scope.
#pragma once

#include <utility>

#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1 {

/// While it lives, what the calling thread asks of this stream is answered without the driver: for a call that passes
/// the stream on, after it has asked who it is.
class identified_scope {
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

  /// Returns the identity that the innermost scope has for a stream; null where it has another stream's.
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
class unidentified_scope {
 public:
  unidentified_scope() noexcept : outer_(std::exchange(identified_scope::innermost_, nullptr)) {}
  ~unidentified_scope() { identified_scope::innermost_ = outer_; }
  unidentified_scope(const unidentified_scope&) = delete;
  unidentified_scope& operator=(const unidentified_scope&) = delete;

 private:
  const identified_scope* outer_;
};

}  // namespace cenote::inline v1
