// Stream capture: work issued on a capturing stream becomes part of a graph instead of running.
//
// 1. cuStreamBeginCapture makes a stream_capture with the stream as its origin. Other streams join when they wait for
// an event
//    that was recorded in it, and must be joined back before cuStreamEndCapture.
// 2. What has been joined is known from vector clocks: each stream of the capture knows how much captured work of each
//    other one comes before its next. At the end the origin must know all of it.
//
//        origin  --a--record e----------------wait f--end      origin: {origin: 1, fork: 1}, all of it
//        fork            wait e--b--record f                   fork:   {origin: 1, fork: 1}
//
// 3. A capture is invalidated by an illegal call in its way. Its streams stay in it until cuStreamEndCapture, which
//    answers CUDA_ERROR_STREAM_CAPTURE_INVALIDATED.
//
// Which call is illegal when: the `capture` column of entry/entry_points.hpp for the potentially unsafe ones, and
// the methods of ongoing_captures for the others.
//
// Threads: guarded by driver_mutex().
// Source: CUDA driver API, section Stream Management; the answers of an H100, driver 580.159.04, in all three modes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/ground/failure.hpp"
#include "sim/stream/graph.hpp"

namespace cenote::sim {

struct primary_context;
struct simulated_stream;

/// Captured work that comes before something: how much, by stream id.
using vector_clock = std::map<std::uint64_t, std::uint64_t>;

struct stream_capture {
  std::uint64_t id;
  CUstreamCaptureMode mode;
  std::uint64_t thread;  ///< thread_state::number of the one that began it
  std::uint64_t origin;  ///< stream id
  primary_context* context;
  CUgraph graph_handle;
  std::shared_ptr<captured_graph> graph;
  bool invalidated = false;
  bool ended = false;
  std::map<std::uint64_t, vector_clock> clocks;            ///< by stream id
  std::vector<std::weak_ptr<simulated_stream>> streams{};  ///< that have joined it, the origin first

  /// Throws failure(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED).
  void require_valid() const { require(!invalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED); }

  /// Adds a node behind all that the stream has in this capture. Throws failure where it was invalidated.
  void record(const simulated_stream& stream, graph_node node = nullptr);

  /// What the stream captures from now on comes after `clock`.
  void order_after(const simulated_stream& stream, const vector_clock& clock);

  /// True where every captured piece of work comes before the origin's end.
  bool joined() const;
};

class ongoing_captures {
 public:
  void begin(const std::shared_ptr<simulated_stream>& stream, CUstreamCaptureMode mode);

  /// Ends the stream's capture and hands out its graph. Throws failure, with the capture ended or not as the real one.
  CUgraph end(const simulated_stream& stream);

  /// A potentially unsafe call. Throws failure and invalidates every capture that forbids it to this thread.
  void require_relaxed();

  /// A call that no capture of the context allows, in any mode.
  void forbid(primary_context& context);

  /// The legacy stream of a context was named while one of its blocking streams captures: illegal, as the legacy
  /// stream would wait for that one. `invalidates` is false for the one call that only asks.
  void require_no_implied_wait(primary_context& context, bool invalidates);

  /// Invalidates the capture, writes the violation down and fails.
  [[noreturn]] void refuse(stream_capture& capture, CUresult code, const std::string& why);

  /// Drops captures whose origin is gone.
  void forget(const simulated_stream& stream);
  void forget(const primary_context& context);

 private:
  void drop(const std::shared_ptr<stream_capture>& capture);

  std::vector<std::shared_ptr<stream_capture>> ongoing_;
  std::uint64_t last_id_ = 0;
};

/// Those of the process.
ongoing_captures& captures();

}  // namespace cenote::sim
