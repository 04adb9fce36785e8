// Graphs: what was captured runs at each launch, at the addresses that it was given; and what lives as long as a graph.
#include <vector>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimGraph : public Sim {
 protected:
  void SetUp() override {
    Sim::SetUp();
    stream = make_stream();
    memory = make_memory();
  }

  void TearDown() override {
    EXPECT_EQ(0U, live().graphs);
    Sim::TearDown();
  }

  /// What `work` does on `stream`, as a graph.
  template <class Work>
  CUgraph captured(Work&& work) const {
    CUgraph graph = nullptr;
    EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    work();
    EXPECT_OK(cuStreamEndCapture(stream, &graph));
    return graph;
  }

  static CUgraphExec made_executable(CUgraph graph) {
    CUgraphExec executable = nullptr;
    EXPECT_OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
    return executable;
  }

  /// The same, and only the executable graph is left.
  template <class Work>
  CUgraphExec executable_of(Work&& work) const {
    const CUgraph graph = captured(work);
    const CUgraphExec executable = made_executable(graph);
    EXPECT_OK(cuGraphDestroy(graph));
    return executable;
  }

  void launch(CUgraphExec executable) const {
    EXPECT_OK(cuGraphLaunch(executable, stream));
    EXPECT_OK(cuStreamSynchronize(stream));
  }

  CUstream stream = nullptr;
  CUdeviceptr memory = 0;
};

TEST_F(SimGraph, captured_work_runs_at_each_launch_and_not_before) {
  unsigned char* const pinned = make_pinned(KiB, 1);
  const CUgraphExec executable = executable_of([&] {
    EXPECT_OK(cuMemcpyAsync(memory, device_address(pinned), KiB, stream));
    EXPECT_OK(cuMemsetD8Async(memory + 1, 9, 1, stream));
  });
  EXPECT_EQ(1U, live().graphs);
  EXPECT_OK(cuMemsetD8Async(memory, 0, KiB, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  for (const unsigned char value : {1, 2}) {
    pinned[0] = value;
    launch(executable);
    EXPECT_EQ(value, byte_at(memory));
    EXPECT_EQ(9, byte_at(memory + 1));
  }
  EXPECT_OK(cuGraphExecDestroy(executable));
}

TEST_F(SimGraph, a_launch_is_work_of_its_stream) {
  const CUgraphExec executable = executable_of([&] { EXPECT_OK(cuMemsetD8Async(memory, 9, 1, stream)); });
  const CUstream other = make_stream();
  EXPECT_OK(cuMemsetD8Async(memory, 1, 1, other));
  EXPECT_OK(cuGraphLaunch(executable, other));
  EXPECT_OK(cuGraphExecDestroy(executable)) << "what was launched runs all the same";
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_GT(cenote_sim_pending(), 0U);
  EXPECT_OK(cuStreamSynchronize(other));
  EXPECT_EQ(9, byte_at(memory));
}

TEST_F(SimGraph, forks_are_part_of_it_and_host_functions_too) {
  const CUstream fork = make_stream();
  int calls = 0;
  const CUgraphExec executable = executable_of([&] {
    EXPECT_OK(cuStreamWaitEvent(fork, record_on(stream), 0));
    EXPECT_OK(cuMemsetD8Async(memory, 9, 1, fork));
    EXPECT_OK(cuLaunchHostFunc(fork, [](void* count) { ++*static_cast<int*>(count); }, &calls));
    EXPECT_OK(cuStreamWaitEvent(stream, record_on(fork), 0));
  });
  EXPECT_EQ(0, calls);
  launch(executable);
  launch(executable);
  EXPECT_EQ(2, calls);
  EXPECT_EQ(9, byte_at(memory));
  EXPECT_OK(cuGraphExecDestroy(executable));
}

TEST_F(SimGraph, a_launch_in_a_capture_is_a_node) {
  const CUgraphExec inner = executable_of([&] { EXPECT_OK(cuMemsetD8Async(memory, 9, 1, stream)); });
  const CUgraphExec outer = executable_of([&] { EXPECT_OK(cuGraphLaunch(inner, stream)); });
  EXPECT_OK(cuGraphExecDestroy(inner));
  launch(outer);
  EXPECT_EQ(9, byte_at(memory));
  EXPECT_OK(cuGraphExecDestroy(outer));
}

TEST_F(SimGraph, a_dead_handle_is_written_down) {
  const CUgraphExec executable = executable_of([] {});
  EXPECT_OK(cuGraphExecDestroy(executable));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuGraphLaunch(executable, stream));
  expect_violation("executable graph");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuGraphExecDestroy(executable));
  expect_violation("executable graph");
}

TEST_F(SimGraph, memory_that_it_allocates_lives_until_it_its_executable_and_its_launches_are_gone) {
  CUdeviceptr own = 0;
  const CUgraph graph = captured([&] {
    EXPECT_OK(cuMemAllocAsync(&own, KiB, stream));
    EXPECT_OK(cuMemsetD8Async(own, 9, KiB, stream));
  });
  const std::uint64_t with_graph = live().allocations;
  const CUgraphExec executable = made_executable(graph);
  EXPECT_OK(cuGraphDestroy(graph));
  EXPECT_OK(cuGraphLaunch(executable, stream));
  EXPECT_OK(cuGraphExecDestroy(executable));
  EXPECT_EQ(with_graph, live().allocations);
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(with_graph - 1, live().allocations);
}

/// Under the addresses of a graph, pages come and go.
class SimGraphOverPages : public SimGraph {
 protected:
  void SetUp() override {
    SimGraph::SetUp();
    ASSERT_OK(cuMemAddressReserve(&address, step, 0, 0, 0));
    map();
    executable = executable_of([&] { EXPECT_OK(cuMemsetD8Async(address, 9, KiB, stream)); });
  }

  void TearDown() override {
    EXPECT_OK(cuGraphExecDestroy(executable));
    EXPECT_OK(cuMemUnmap(address, step));
    EXPECT_OK(cuMemAddressFree(address, step));
    SimGraph::TearDown();
  }

  void map() {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle = 0;
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    ASSERT_OK(cuMemCreate(&handle, step, &properties, 0));
    ASSERT_OK(cuMemMap(address, step, 0, handle, 0));
    ASSERT_OK(cuMemSetAccess(address, step, &access, 1));
    ASSERT_OK(cuMemRelease(handle));
  }

  CUdeviceptr address = 0;
  CUgraphExec executable = nullptr;
};

TEST_F(SimGraphOverPages, a_graph_keeps_addresses_and_no_pages) {
  for (int round = 0; round < 3; ++round) {
    launch(executable);
    EXPECT_EQ(9, byte_at(address));
    EXPECT_OK(cuMemUnmap(address, step));
    map();
    EXPECT_NE(9, byte_at(address)) << "another page";
  }
}

TEST_F(SimGraphOverPages, a_launch_over_unmapped_addresses_is_an_illegal_access) {
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_EQ(CUDA_ERROR_ILLEGAL_ADDRESS, cuGraphLaunch(executable, stream));
  expect_violation("are not all in live memory: freed, unmapped");
  map();
  launch(executable);
}

TEST_F(SimGraphOverPages, unmapping_under_a_launch_is_written_down) {
  EXPECT_OK(cuGraphLaunch(executable, stream));
  EXPECT_OK(cuMemUnmap(address, step));
  expect_violation("is unmapped while work of cuGraphLaunch on it is pending");
  EXPECT_OK(cuStreamSynchronize(stream));
}

TEST_F(SimGraphOverPages, a_launch_is_ordered_with_eager_work_as_any_work_is) {
  const CUstream other = make_stream();
  EXPECT_OK(cuMemsetD8Async(address, 1, KiB, other));
  EXPECT_OK(cuGraphLaunch(executable, stream));
  expect_violation("is not ordered after work of cuMemsetD8Async");
  EXPECT_OK(cuCtxSynchronize());
}

TEST_F(SimGraphOverPages, launches_of_one_graph_come_one_after_another) {
  const CUstream other = make_stream();
  EXPECT_OK(cuGraphLaunch(executable, stream));
  EXPECT_OK(cuGraphLaunch(executable, other));
  EXPECT_OK(cuStreamSynchronize(other));
  EXPECT_EQ(0U, cenote_sim_pending());
}

/// Objects of the program that a graph holds.
class SimUserObject : public SimGraph {
 protected:
  CUuserObject make_object(unsigned int references = 1) {
    CUuserObject object = nullptr;
    EXPECT_OK(cuUserObjectCreate(&object, &ended, end_one, references, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    return object;
  }

  static void end_one(void* count) {
    ++*static_cast<int*>(count);
    EXPECT_EQ(CUDA_ERROR_NOT_PERMITTED, cuCtxSynchronize()) << "no call is allowed";
  }

  int ended = 0;
};

TEST_F(SimUserObject, ends_with_its_last_reference) {
  const CUuserObject object = make_object(2);
  EXPECT_OK(cuUserObjectRetain(object, 1));
  EXPECT_OK(cuUserObjectRelease(object, 2));
  EXPECT_EQ(0, ended);
  EXPECT_OK(cuUserObjectRelease(object, 1));
  EXPECT_EQ(1, ended);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuUserObjectRelease(object, 1));
  expect_violation("user object");
}

TEST_F(SimUserObject, ends_with_the_graph_its_executable_and_its_launches) {
  const CUgraph graph = captured([&] { EXPECT_OK(cuMemsetD8Async(memory, 1, 1, stream)); });
  EXPECT_OK(cuGraphRetainUserObject(graph, make_object(), 1, CU_GRAPH_USER_OBJECT_MOVE));
  const CUgraphExec executable = made_executable(graph);
  EXPECT_OK(cuGraphDestroy(graph));
  EXPECT_OK(cuGraphLaunch(executable, stream));
  EXPECT_OK(cuGraphExecDestroy(executable));
  EXPECT_EQ(0, ended);
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(1, ended);
}

TEST_F(SimUserObject, of_a_capture_that_is_abandoned_ends_with_it) {
  EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUgraph graph = nullptr;
  auto status = CU_STREAM_CAPTURE_STATUS_NONE;
  EXPECT_OK(cuStreamGetCaptureInfo(stream, &status, nullptr, &graph, nullptr, nullptr, nullptr));
  EXPECT_OK(cuGraphRetainUserObject(graph, make_object(), 1, CU_GRAPH_USER_OBJECT_MOVE));
  unsigned long long id = 0;
  EXPECT_NE(CUDA_SUCCESS, cuStreamGetId(stream, &id));
  EXPECT_FALSE(take_violations().empty());
  EXPECT_EQ(0, ended);
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
  EXPECT_EQ(1, ended);
}

TEST_F(SimUserObject, is_held_by_a_graph_beside_the_program_and_can_be_let_go) {
  const CUuserObject object = make_object();
  const CUgraph graph = captured([] {});
  EXPECT_OK(cuGraphRetainUserObject(graph, object, 2, 0));
  EXPECT_OK(cuUserObjectRelease(object, 1));
  EXPECT_OK(cuGraphReleaseUserObject(graph, object, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuGraphReleaseUserObject(graph, object, 2));
  EXPECT_EQ(0, ended);
  EXPECT_OK(cuGraphReleaseUserObject(graph, object, 1));
  EXPECT_EQ(1, ended);
  EXPECT_OK(cuGraphDestroy(graph));
}

}  // namespace
}  // namespace cenote::sim_test
