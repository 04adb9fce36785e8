// Graphs: captured work, to be launched again and again; and objects of the program that live as long as a graph.
//
// 1. A capture (capture.hpp) leaves a graph: its nodes, in the order in which they were captured, and the memory that
//    it allocated itself. A node is a function that issues its work on the stream of a launch.
// 2. A graph keeps addresses, and looks up what lies there when it is launched. A program may therefore put other pages
//    under them between two launches; where nothing is mapped, the launch fails (entry/graphs.cpp).
// 3. An executable graph shares the graph that it was made from, and so does work that has been launched and not run.
//    The graph's memory and user objects go when none of them is left.
// 4. A user object has a function that is called once the last reference to it is released; it may not call the driver.
//    It waits in ended_user_objects() for a call that may run it (entry/call.hpp).
//
// The nodes of a launch run one after another, also those that were captured on streams side by side: that is one of
// the orders that a device may take.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "sim/device/work.hpp"
#include "sim/ground/cuda_driver.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/made.hpp"

namespace cenote::sim {

struct memory_block;
struct simulated_stream;

struct user_object {
  void* value;
  CUhostFn destroy;
  std::uint64_t references;  ///< of the program and of graphs together
  CUuserObject handle{};
};

/// Releases references; the last one takes the handle away, and has the object's function called later.
void release(user_object& object, std::uint64_t references);

/// Issues the work of a node on a stream.
using graph_node = std::function<void(simulated_stream&)>;

struct captured_graph : std::enable_shared_from_this<captured_graph> {
  std::vector<graph_node> nodes{};                                  ///< null: nothing to run
  std::vector<std::shared_ptr<memory_block>> blocks{};              ///< allocated by the graph's own nodes
  std::map<std::shared_ptr<user_object>, std::uint64_t> objects{};  ///< and how many references it has
  const creation made = made_now();

  ~captured_graph();

  /// Issues all of it. Throws failure where memory of a node is not there; what comes before that node is issued.
  queue_point launch(simulated_stream& stream);
};

struct executable_graph {
  std::shared_ptr<captured_graph> graph;
  queue_points launched{};  ///< the end of the last launch, which the next one comes after
  const creation made = made_now();
};

handle_table<CUgraph, captured_graph>& live_graphs();
handle_table<CUgraphExec, executable_graph>& live_executable_graphs();
handle_table<CUuserObject, user_object>& live_user_objects();

/// What a user object's last reference leaves to be called.
struct host_call {
  CUhostFn function;
  void* argument;
};
std::vector<host_call>& ended_user_objects();

}  // namespace cenote::sim
