#include "sim/stream/graph.hpp"

#include "sim/device/allocation.hpp"
#include "sim/memory/block.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {

void release(user_object& object, std::uint64_t references) {
  object.references -= references;
  if (object.references == 0) {
    ended_user_objects().push_back({object.destroy, object.value});
    live_user_objects().remove(object.handle);
  }
}

captured_graph::~captured_graph() {
  for (const auto& block : blocks) {
    free_block(*block);
  }
  for (const auto& [object, references] : objects) {
    release(*object, references);
  }
}

queue_point captured_graph::launch(simulated_stream& stream) {
  for (const graph_node& node : nodes) {
    if (node) {
      node(stream);
    }
  }
  return stream.submit({.after = {}, .action = [graph = shared_from_this()] {}});
}

handle_table<CUgraph, captured_graph>& live_graphs() {
  static auto* const graphs = new handle_table<CUgraph, captured_graph>("graph", 0x54);
  return *graphs;
}

handle_table<CUgraphExec, executable_graph>& live_executable_graphs() {
  static auto* const graphs = new handle_table<CUgraphExec, executable_graph>("executable graph", 0x56);
  return *graphs;
}

handle_table<CUuserObject, user_object>& live_user_objects() {
  static auto* const objects = new handle_table<CUuserObject, user_object>("user object", 0x57);
  return *objects;
}

std::vector<host_call>& ended_user_objects() {
  static auto* const ended = new std::vector<host_call>;
  return *ended;
}

}  // namespace cenote::sim
