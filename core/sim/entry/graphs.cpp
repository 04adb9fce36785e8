// Graphs that captures have left (stream/graph.hpp): made executable, launched, destroyed; and user objects.
//
// A launch issues the work of its nodes as if the program did it now, with the same checks. Memory that is not there is
// written down, and the launch answers CUDA_ERROR_ILLEGAL_ADDRESS: a device finds out when the graph runs, and the
// context is lost.
//
// Source: CUDA driver API, section Graph Management.
#include <cstddef>
#include <memory>

#include "sim/entry/call.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/stream/capture.hpp"
#include "sim/stream/graph.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

std::shared_ptr<captured_graph> graph_of(CUgraph handle) {
  return find_live(live_graphs(), handle, CUDA_ERROR_INVALID_VALUE);
}

std::shared_ptr<user_object> object_of(CUuserObject handle) {
  return find_live(live_user_objects(), handle, CUDA_ERROR_INVALID_VALUE);
}

void launch(executable_graph& executable, simulated_stream& stream) {
  try {
    stream.submit({.after = executable.launched, .action = nullptr});
    executable.launched = {executable.graph->launch(stream)};
  } catch (const failure&) {
    fail(CUDA_ERROR_ILLEGAL_ADDRESS);
  }
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph handle, unsigned long long flags) {
  return call(entry_id::cuGraphInstantiateWithFlags, [&] {
    require(executable != nullptr);
    require((flags & ~static_cast<unsigned long long>(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)) == 0,
            CUDA_ERROR_NOT_SUPPORTED);
    *executable =
        live_executable_graphs().insert(std::make_shared<executable_graph>(executable_graph{graph_of(handle)}));
  });
}

CUresult cuGraphLaunch(CUgraphExec executable, CUstream handle) {
  return call(entry_id::cuGraphLaunch, [&] {
    const auto launched = find_live(live_executable_graphs(), executable, CUDA_ERROR_INVALID_VALUE);
    const auto stream = stream_of(handle);
    if (stream->capture) {
      stream->capture->record(*stream, [graph = launched->graph](simulated_stream& on) { graph->launch(on); });
    } else {
      launch(*launched, *stream);
    }
  });
}

CUresult cuGraphExecDestroy(CUgraphExec executable) {
  return call_with_destructors(entry_id::cuGraphExecDestroy, [&] {
    if (!live_executable_graphs().is_retired(executable)) {
      find_live(live_executable_graphs(), executable, CUDA_ERROR_INVALID_VALUE);
      live_executable_graphs().remove(executable);
    }
  });
}

CUresult cuGraphDestroy(CUgraph handle) {
  return call_with_destructors(entry_id::cuGraphDestroy, [&] {
    if (!live_graphs().is_retired(handle)) {
      graph_of(handle);
      live_graphs().remove(handle);
    }
  });
}

CUresult cuUserObjectCreate(CUuserObject* handle, void* value, CUhostFn destroy, unsigned int references,
                            unsigned int flags) {
  return call(entry_id::cuUserObjectCreate, [&] {
    require(handle != nullptr && destroy != nullptr && references > 0 && flags == CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    const auto object = std::make_shared<user_object>(user_object{value, destroy, references});
    *handle = object->handle = live_user_objects().insert(object);
  });
}

CUresult cuUserObjectRetain(CUuserObject handle, unsigned int references) {
  return call(entry_id::cuUserObjectRetain, [&] {
    require(references > 0);
    object_of(handle)->references += references;
  });
}

CUresult cuUserObjectRelease(CUuserObject handle, unsigned int references) {
  return call_with_destructors(entry_id::cuUserObjectRelease, [&] {
    const auto object = object_of(handle);
    require(references > 0 && references <= object->references);
    release(*object, references);
  });
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject handle, unsigned int references, unsigned int flags) {
  return call(entry_id::cuGraphRetainUserObject, [&] {
    require(references > 0 && (flags & ~static_cast<unsigned int>(CU_GRAPH_USER_OBJECT_MOVE)) == 0);
    const auto object = object_of(handle);
    graph_of(graph)->objects[object] += references;
    if (flags != CU_GRAPH_USER_OBJECT_MOVE) {
      object->references += references;
    }
  });
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject handle, unsigned int references) {
  return call_with_destructors(entry_id::cuGraphReleaseUserObject, [&] {
    const auto object = object_of(handle);
    auto& objects = graph_of(graph)->objects;
    const auto at = objects.find(object);
    require(at != objects.end() && references > 0 && references <= at->second);
    at->second -= references;
    if (at->second == 0) {
      objects.erase(at);
    }
    release(*object, references);
  });
}

}  // extern "C"
