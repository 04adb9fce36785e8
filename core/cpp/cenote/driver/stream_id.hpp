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

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote

template <>
struct std::hash<cenote::stream_id> {
  std::size_t operator()(const cenote::stream_id& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value) ^ std::hash<const void*>{}(id.branch);
  }
};
