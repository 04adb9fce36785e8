// Stream capture: work issued on a capturing stream becomes part of a graph instead of running.
//
// 1. cuStreamBeginCapture makes a Capture with the stream as its origin. Other streams join when they wait for an event
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
// Which call is illegal when: the `capture` column of entry_points.hpp for the potentially unsafe ones, and
// the methods of Captures for the others.
//
// Threads: guarded by Driver::mutex.
// Source: CUDA driver API, section Stream Management; the answers of an H100, driver 580.159.04, in all three modes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "failure.hpp"
#include "made.hpp"

namespace cenote::sim {

struct Block;
struct Context;
struct Stream;

/// Captured work that comes before something: how much, by stream id.
using Clock = std::map<std::uint64_t, std::uint64_t>;

struct Graph {
  std::uint64_t nodes = 0;
  std::vector<std::shared_ptr<Block>> blocks;  ///< allocated by the graph's own nodes
  const Made made = made_now();

  ~Graph();
};

struct Capture {
  std::uint64_t id;
  CUstreamCaptureMode mode;
  std::uint64_t thread;  ///< ThreadState::number of the one that began it
  std::uint64_t origin;  ///< stream id
  Context* context;
  CUgraph graph_handle;
  std::shared_ptr<Graph> graph;
  bool invalidated = false;
  bool ended = false;
  std::map<std::uint64_t, Clock> clocks;         ///< by stream id
  std::vector<std::weak_ptr<Stream>> streams{};  ///< that have joined it, the origin first

  /// Throws Failure(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED).
  void require_valid() const { require(!invalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED); }

  /// Adds a node behind all that the stream has in this capture. Throws Failure where it was invalidated.
  void record(const Stream& stream);

  /// What the stream captures from now on comes after `clock`.
  void order_after(const Stream& stream, const Clock& clock);

  /// True where every captured piece of work comes before the origin's end.
  bool joined() const;
};

class Captures {
 public:
  void begin(const std::shared_ptr<Stream>& stream, CUstreamCaptureMode mode);

  /// Ends the stream's capture and hands out its graph. Throws Failure, with the capture ended or not as the real one.
  CUgraph end(const Stream& stream);

  /// A potentially unsafe call. Throws Failure and invalidates every capture that forbids it to this thread.
  void require_relaxed();

  /// A call that no capture of the context allows, in any mode.
  void forbid(Context& context);

  /// The legacy stream of a context was named while one of its blocking streams captures: illegal, as the legacy
  /// stream would wait for that one. `invalidates` is false for the one call that only asks.
  void require_no_implied_wait(Context& context, bool invalidates);

  /// Invalidates the capture, writes the violation down and fails.
  [[noreturn]] void refuse(Capture& capture, CUresult code, const std::string& why);

  /// Drops captures whose origin is gone.
  void forget(const Stream& stream);
  void forget(const Context& context);

 private:
  void drop(const std::shared_ptr<Capture>& capture);

  std::vector<std::shared_ptr<Capture>> ongoing_;
  std::uint64_t last_id_ = 0;
};

}  // namespace cenote::sim
