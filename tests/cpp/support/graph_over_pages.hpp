// A pool over virtual memory on a simulated device, a stream that is captured and one that is not.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {

inline constexpr std::size_t graph_page_bytes = 2 * MiB;

class graph_over_pages : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    streams_.emplace();
    captured_ = streams_->at(0).view();
    eager_ = streams_->at(1).view();
    make_pool({});
  }

  void TearDown() override {
    pool_.reset();
    streams_.reset();
    simulated_device::TearDown();
  }

  void make_pool(std::optional<std::size_t> maximum) {
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0), std::nullopt, maximum);
  }

  void begin() { ASSERT_EQ(cuStreamBeginCapture(captured_.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS); }

  CUgraph end() {
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(captured_.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
    return graph;
  }

  CUgraphExec end_and_instantiate() {
    const CUgraph graph = end();
    CUgraphExec executable = nullptr;
    const device_scope scope(0);  // an executable graph is made in the current context
    EXPECT_EQ(cuGraphInstantiate(&executable, graph, 0), CUDA_SUCCESS);
    EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
    return executable;
  }

  /// A graph that fills a block, which stays in use.
  CUgraphExec graph_that_fills(void*& block, std::size_t bytes, unsigned char value) {
    begin();
    block = pool_->allocate(captured_, bytes);
    fill_async(block, value, bytes, captured_, 0);
    return end_and_instantiate();
  }

  void launch(CUgraphExec executable) { EXPECT_EQ(cuGraphLaunch(executable, captured_.value()), CUDA_SUCCESS); }

  static bool holds(const void* block, unsigned char value, std::size_t bytes) {
    std::vector<unsigned char> seen(bytes);
    copy_async(seen.data(), block, bytes, {}, 0);
    synchronize({}, 0);
    return seen == std::vector<unsigned char>(bytes, value);
  }

  std::shared_ptr<pool_memory_resource> pool_;
  stream_ref captured_;
  stream_ref eager_;

 private:
  std::optional<std::array<stream_of_ours, 2>> streams_;
};

}  // namespace cenote::test
