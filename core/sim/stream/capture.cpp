#include "sim/stream/capture.hpp"

#include <algorithm>
#include <utility>

#include "sim/device/context.hpp"
#include "sim/device/thread_state.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/violations.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

/// `visit(simulated_stream&)` for each that is there and still in the capture.
template <class Visit>
void for_each_stream_in(const stream_capture& capture, Visit&& visit) {
  for (const auto& joined : capture.streams) {
    const auto stream = joined.lock();
    if (stream && stream->capture.get() == &capture) {
      visit(*stream);
    }
  }
}

}  // namespace

void stream_capture::record(const simulated_stream& stream, graph_node node) {
  require_valid();
  graph->nodes.push_back(std::move(node));
  ++clocks[stream.id][stream.id];
}

void stream_capture::order_after(const simulated_stream& stream, const vector_clock& clock) {
  vector_clock& known = clocks[stream.id];
  for (const auto& [id, nodes] : clock) {
    known[id] = std::max(known[id], nodes);
  }
}

bool stream_capture::joined() const {
  const vector_clock& known = clocks.at(origin);
  return std::all_of(clocks.begin(), clocks.end(), [&](const auto& entry) {
    const auto& [id, clock] = entry;
    const auto own = clock.find(id);
    const auto seen = known.find(id);
    return own == clock.end() || (seen != known.end() && seen->second >= own->second);
  });
}

void ongoing_captures::begin(const std::shared_ptr<simulated_stream>& stream, CUstreamCaptureMode mode) {
  require(mode <= CU_STREAM_CAPTURE_MODE_RELAXED);
  require(stream->kind != stream_kind::legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  require(!stream->capture, CUDA_ERROR_ILLEGAL_STATE);
  auto graph = std::make_shared<captured_graph>();
  auto capture = std::make_shared<stream_capture>(stream_capture{.id = ++last_id_,
                                                                 .mode = mode,
                                                                 .thread = this_thread().number,
                                                                 .origin = stream->id,
                                                                 .context = &stream->context,
                                                                 .graph_handle = live_graphs().insert(graph),
                                                                 .graph = graph,
                                                                 .clocks = {{stream->id, {}}},
                                                                 .streams = {stream}});
  ongoing_.push_back(capture);
  stream->capture = std::move(capture);
}

CUgraph ongoing_captures::end(const simulated_stream& stream) {
  const auto capture = stream.capture;
  require(capture != nullptr, CUDA_ERROR_ILLEGAL_STATE);
  if (stream.id != capture->origin) {
    refuse(*capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture was begun on another stream");
  }
  drop(capture);
  const auto outcome = [&] {
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != this_thread().number) {
      return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    if (capture->invalidated) {
      return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    return capture->joined() ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }();
  if (outcome != CUDA_SUCCESS) {
    live_graphs().remove(capture->graph_handle);
    fail(outcome);
  }
  return capture->graph_handle;
}

void ongoing_captures::require_relaxed() {
  const thread_state& thread = this_thread();
  if (thread.capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED) {
    return;
  }
  bool forbidden = false;
  for (const auto& capture : ongoing_) {
    const bool mine = capture->thread == thread.number && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    const bool everyones =
        thread.capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (mine || everyones) {
      capture->invalidated = true;
      forbidden = true;
    }
  }
  if (forbidden) {
    violations().add("unsafe while a stream is capturing; the capture is invalidated");
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
}

void ongoing_captures::forbid(primary_context& context) {
  bool forbidden = false;
  for (const auto& capture : ongoing_) {
    if (capture->context == &context) {
      capture->invalidated = true;
      forbidden = true;
    }
  }
  if (forbidden) {
    violations().add("illegal while a stream of the context is capturing; the capture is invalidated");
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
}

void ongoing_captures::require_no_implied_wait(primary_context& context, bool invalidates) {
  for (const auto& capture : ongoing_) {
    for_each_stream_in(*capture, [&](const simulated_stream& stream) {
      if (&stream.context != &context || !stream.blocking()) {
        return;
      }
      if (invalidates) {
        refuse(*capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
               "the legacy stream would wait for a blocking stream that is capturing; the capture is invalidated");
      }
      fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    });
  }
}

void ongoing_captures::refuse(stream_capture& capture, CUresult code, const std::string& why) {
  capture.invalidated = true;
  violations().add(why);
  fail(code);
}

void ongoing_captures::forget(const simulated_stream& stream) {
  const auto capture = stream.capture;
  if (!capture) {
    return;
  }
  capture->invalidated = true;
  if (stream.id == capture->origin) {
    drop(capture);
    live_graphs().remove(capture->graph_handle);
  }
}

void ongoing_captures::forget(const primary_context& context) {
  const auto ongoing = ongoing_;
  for (const auto& capture : ongoing) {
    if (capture->context == &context) {
      drop(capture);
      live_graphs().remove(capture->graph_handle);
    }
  }
}

void ongoing_captures::drop(const std::shared_ptr<stream_capture>& capture) {
  capture->ended = true;
  for_each_stream_in(*capture, [](simulated_stream& stream) { stream.capture = nullptr; });
  std::erase(ongoing_, capture);
}

ongoing_captures& captures() {
  static ongoing_captures* const ongoing = new ongoing_captures;
  return *ongoing;
}

}  // namespace cenote::sim
