// Memory of the driver's pools that nobody uses: whoever was refused memory gets it, whatever it asks, and whoever
// freed it; and no capture is ended for it.
#include "cenote/driver/driver_pools.hpp"

#include "cenote/containers/device_buffer.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_async_managed_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_async_view_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/registry.hpp"
#include "cenote/surface/specification.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class driver_pools_memory : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    most_ = align_down(device_memory_info(0).free_bytes * 3 / 4, 2 * MiB);
  }

  /// Allocates most of the device and frees it, behind work that has not run.
  void use_most(memory_resource& resource, stream_ref stream) {
    void* const block = resource.allocate(stream, most_);
    fill_async(block, 1, 256, stream, 0);
    resource.deallocate(stream, block, most_);
  }

  void use_most_and_end(stream_ref stream) {
    cuda_async_memory_resource resource;
    use_most(resource, stream);
  }

  /// Takes most of the device, and gives it back.
  void expect_most(memory_resource& resource, stream_ref stream) {
    void* const block = resource.try_allocate(stream, most_);
    ASSERT_NE(block, nullptr) << describe(resource);
    resource.deallocate(stream, block, most_);
  }

  const cuda_stream earlier_{0, cuda_stream::kind::non_blocking};
  const cuda_stream later_{0, cuda_stream::kind::non_blocking};
  std::size_t most_ = 0;
};

/// Whoever asks the driver.
class driver_pools_memory_for : public driver_pools_memory, public testing::WithParamInterface<const char*> {};

TEST_P(driver_pools_memory_for, what_a_resource_that_is_gone_has_left_is_there_for_the_next) {
  for (const stream_ref freed_on : {earlier_.view(), stream_ref{}, per_thread_default_stream()}) {
    use_most_and_end(freed_on);
    const auto next = make_resource(GetParam(), 0);
    expect_most(*next, later_.view());
  }
}

TEST_P(driver_pools_memory_for, what_a_resource_that_is_there_does_not_use_is_there_for_another) {
  cuda_async_memory_resource other;
  use_most(other, earlier_.view());
  const auto next = make_resource(GetParam(), 0);
  expect_most(*next, later_.view());
}

TEST_P(driver_pools_memory_for, nobody_waits_for_what_would_not_be_enough) {
  cuda_async_memory_resource other;
  use_most(other, earlier_.view());
  const auto next = make_resource(GetParam(), 0);
  const call_count waits("cuCtxSynchronize");
  EXPECT_EQ(next->try_allocate(later_.view(), 2 * most_), nullptr);
  EXPECT_EQ(waits.value(), 0);
}

INSTANTIATE_TEST_SUITE_P(asking, driver_pools_memory_for,
                         testing::Values("cuda", "async", "pool:initial=0 | cuda", "pool:initial=0 | async",
                                         "limiting:limit=1TiB | cuda", "prefetch | statistics | async",
                                         "binning:min=8,max=9 | cuda"),
                         [](const auto& tested) { return "number_" + std::to_string(tested.index); });

TEST_F(driver_pools_memory, of_a_current_resource_that_was_replaced_is_there_for_the_next) {
  set_per_device_resource(0, make_resource("async", 0));
  {
    const device_buffer buffer(most_, {}, get_per_device_resource(0));
  }
  set_per_device_resource(0, make_resource("pool:initial=" + std::to_string(most_) + " | cuda", 0));
  set_per_device_resource(0, std::make_shared<cuda_memory_resource>(0));
}

TEST_F(driver_pools_memory, in_pieces_of_several_streams_is_there_in_one_piece) {
  cuda_async_memory_resource resource;
  const std::size_t piece = align_down(most_ / 12, 2 * MiB);
  std::vector<void*> pieces;
  for (int i = 0; i < 12; ++i) pieces.push_back(resource.allocate((i % 2 == 0 ? earlier_ : later_).view(), piece));
  for (int i = 0; i < 12; ++i) {
    const stream_ref stream = (i % 2 == 0 ? earlier_ : later_).view();
    fill_async(pieces[static_cast<std::size_t>(i)], 1, 256, stream, 0);
    resource.deallocate(stream, pieces[static_cast<std::size_t>(i)], piece);
  }
  expect_most(resource, {});
}

TEST_F(driver_pools_memory, of_a_pool_that_is_viewed_is_there_for_the_view) {
  cuda_async_memory_resource owner;
  cuda_async_view_memory_resource view(owner.pool_handle());
  use_most(owner, earlier_.view());
  expect_most(view, later_.view());
}

/// Begins a capture and says that it stays valid.
class valid_capture {
 public:
  valid_capture(stream_ref stream, bool is_announced) : stream_(stream), is_announced_(is_announced) {
    if (is_announced) capture_begins(0);
    EXPECT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  }
  ~valid_capture() {
    CUgraph graph = nullptr;
    EXPECT_EQ(cuStreamEndCapture(stream_.value(), &graph), CUDA_SUCCESS) << "the capture was ended";
    if (graph != nullptr) cuGraphDestroy(graph);
    if (is_announced_) capture_ended(0);
  }

 private:
  stream_ref stream_;
  bool is_announced_;
};

TEST_F(driver_pools_memory, is_not_waited_for_beside_a_capture_that_is_known_of) {
  const cuda_stream blocking(0);
  const cuda_stream non_blocking(0, cuda_stream::kind::non_blocking);
  cuda_memory_resource cuda;
  for (const bool is_announced : {false, true}) {
    cuda_async_memory_resource other;
    use_most(other, earlier_.view());
    {
      const valid_capture underway((is_announced ? non_blocking : blocking).view(), is_announced);
      EXPECT_EQ(cuda.try_allocate(later_.view(), most_), nullptr);
      EXPECT_EQ(other.try_allocate(later_.view(), 2 * most_), nullptr);
    }
    expect_most(cuda, later_.view());
  }
}

TEST_F(driver_pools_memory, that_was_freed_on_the_default_stream_is_there_beside_a_capture) {
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  cuda_memory_resource cuda;
  for (const bool is_announced : {false, true}) {
    use_most_and_end({});
    const valid_capture underway(captured.view(), is_announced);
    expect_most(cuda, later_.view());
  }
}

TEST_F(driver_pools_memory, is_not_waited_for_where_the_stream_that_asks_is_captured) {
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  cuda_memory_resource cuda;
  const auto pool = make_resource("pool:initial=0 | cuda", 0);
  cuda_async_memory_resource other;
  use_most(other, earlier_.view());
  const valid_capture underway(captured.view(), /*is_announced=*/false);
  EXPECT_EQ(cuda.try_allocate(captured.view(), most_), nullptr);
  EXPECT_EQ(pool->try_allocate(captured.view(), most_), nullptr);
}

class managed_pool : public simulated_device {
 protected:
  /// Bytes that the pool holds after a block was used and the device has done all its work.
  static std::size_t held_when_idle(memory_resource& resource) {
    resource.deallocate({}, resource.allocate({}, 64 * MiB), 64 * MiB);
    synchronize_device(0);
    return resource.state().held.value();
  }

  static std::uint64_t threshold() {
    std::uint64_t bytes = 0;
    EXPECT_EQ(cuMemPoolGetAttribute(default_managed_pool(0).value(), CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes),
              CUDA_SUCCESS);
    return bytes;
  }

  static void set_threshold(std::uint64_t bytes) {
    EXPECT_EQ(cuMemPoolSetAttribute(default_managed_pool(0).value(), CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes),
              CUDA_SUCCESS);
  }
};

TEST_F(managed_pool, keeps_what_is_freed_over_a_synchronisation_while_there_is_a_resource) {
  std::optional<cuda_async_managed_memory_resource> one(0);
  {
    cuda_async_managed_memory_resource another(0);
    EXPECT_GE(held_when_idle(another), 64 * MiB);
  }
  EXPECT_GE(held_when_idle(*one), 64 * MiB);
  one.reset();
  EXPECT_EQ(threshold(), 0u) << "as others in the process know it";
  EXPECT_EQ(default_managed_pool(0).reserved_bytes(), 0u);
}

TEST_F(managed_pool, keeps_as_much_as_somebody_else_has_said) {
  set_threshold(8 * MiB);
  {
    cuda_async_managed_memory_resource(0);
  }
  EXPECT_EQ(threshold(), 8 * MiB);
  set_threshold(0);
  {
    cuda_async_managed_memory_resource resource(0);
    set_threshold(8 * MiB);
  }
  EXPECT_EQ(threshold(), 8 * MiB);
  set_threshold(0);
}

}  // namespace
}  // namespace cenote::test
