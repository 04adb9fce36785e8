// Thrust on cenote's memory, as far as it goes without nvcc: the allocator, vectors whose elements nobody constructs,
// and what a policy takes its temporary memory from. Skipped where Thrust's headers are not.
#include "support/simulated.hpp"

#if !__has_include(<thrust/version.h>) || !__has_include(<crt/host_defines.h>)

TEST(thrust_on_cenote, is_there) { GTEST_SKIP() << "needs Thrust: pip install nvidia-cuda-cccl nvidia-cuda-crt"; }

#else

#include <thrust/memory.h>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/thrust.hpp"
#include "support/program_resource.hpp"

namespace cenote::test {
namespace {

class thrust_on_cenote : public simulated_device {
 protected:
  const std::shared_ptr<statistics_resource_adaptor> counted_ = std::make_shared<statistics_resource_adaptor>(
      std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(1), 1 * MiB, std::nullopt));
  const cuda_stream stream_{1, cuda_stream::kind::non_blocking};

  /// What an algorithm does with its policy.
  template <class Policy>
  void use_temporary_memory(Policy policy) {
    const auto [pointer, count] = thrust::get_temporary_buffer<int>(policy, 1000);
    EXPECT_NE(pointer.get(), nullptr);
    EXPECT_EQ(count, 1000);
    EXPECT_EQ(counted_->counters().bytes.current, 4000);
    thrust::return_temporary_buffer(policy, pointer, count);
    EXPECT_EQ(counted_->counters().bytes.current, 0);
  }
};

TEST_F(thrust_on_cenote, allocator_remembers_resource_stream_and_device) {
  thrust_allocator<double> allocator(stream_.view(), counted_);
  EXPECT_EQ(allocator.resource(), counted_);
  EXPECT_EQ(allocator.stream(), stream_.view());
  EXPECT_EQ(allocator.device(), 1);
  const thrust::device_ptr<double> block = allocator.allocate(100);
  EXPECT_EQ(counted_->counters().bytes.current, 800);
  allocator.deallocate(block, 100);
  EXPECT_EQ(counted_->counters().bytes.current, 0);
}

TEST_F(thrust_on_cenote, allocator_passes_its_stream_on) {
  const auto program = std::make_shared<program_resource>(counted_);
  const thrust_allocator<int> allocator(stream_.view(), program);
  thrust_allocator<char> rebound = allocator;
  EXPECT_EQ(rebound, allocator);
  EXPECT_NE(rebound, thrust_allocator<int>(stream_ref(), program));
  rebound.deallocate(rebound.allocate(100), 100);
  EXPECT_EQ(program->last_bytes, 100u);
}

TEST_F(thrust_on_cenote, allocator_never_wraps) {
  thrust_allocator<double> allocator(stream_.view(), counted_);
  EXPECT_THROW(allocator.allocate(~std::size_t{0} / 8 + 1), std::bad_array_new_length);
}

TEST_F(thrust_on_cenote, vector_takes_the_resource_that_is_current_when_it_is_made) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(std::make_shared<cuda_memory_resource>(0));
  set_per_device_resource(0, counted);
  {
    const device_vector<int> vector(100, thrust::no_init);
    reset_per_device_resource(0);
    EXPECT_EQ(vector.get_allocator(), thrust_allocator<int>(stream_ref(), counted));
    EXPECT_EQ(counted->counters().bytes.current, 400);
  }
  EXPECT_EQ(counted->counters().bytes.current, 0);
}

TEST_F(thrust_on_cenote, vector_keeps_its_memory_stream_and_resource_when_it_moves) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(std::make_shared<cuda_memory_resource>(0));
  set_per_device_resource(0, counted);
  device_vector<int> vector(100, thrust::no_init);
  reset_per_device_resource(0);
  const auto address = vector.data();
  device_vector<int> moved(std::move(vector));
  EXPECT_EQ(moved.data(), address);
  device_vector<int> swapped(thrust_allocator<int>(stream_.view(), counted_));
  EXPECT_EQ(swapped.get_allocator(), thrust_allocator<int>(stream_.view(), counted_));
  swapped.swap(moved);
  EXPECT_EQ(swapped.data(), address);
  EXPECT_EQ(swapped.get_allocator().resource(), counted);
  EXPECT_EQ(moved.get_allocator().stream(), stream_.view());
  EXPECT_EQ(counted->counters().count.total, 1);
}

TEST_F(thrust_on_cenote, policies_take_temporary_memory_from_the_resource) {
  use_temporary_memory(exec_policy(stream_.view(), counted_));
  use_temporary_memory(exec_policy_nosync(stream_.view(), counted_));
}

TEST_F(thrust_on_cenote, policies_take_the_current_resource_where_none_is_named) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(std::make_shared<cuda_memory_resource>(0));
  set_per_device_resource(0, counted);
  auto policy = exec_policy_nosync();
  reset_per_device_resource(0);
  const auto [pointer, count] = thrust::get_temporary_buffer<char>(policy, 100);
  EXPECT_EQ(counted->counters().bytes.current, 100);
  thrust::return_temporary_buffer(policy, pointer, count);
}

TEST_F(thrust_on_cenote, policies_run_on_the_stream_and_wait_as_they_say) {
  auto waits = exec_policy(stream_.view(), counted_);
  auto goes_on = exec_policy_nosync(stream_.view(), counted_);
  EXPECT_EQ(stream_ref(thrust::cuda_cub::stream(waits)), stream_.view());
  EXPECT_EQ(stream_ref(thrust::cuda_cub::stream(goes_on)), stream_.view());
  EXPECT_TRUE(thrust::cuda_cub::must_perform_optional_synchronization(waits));
  EXPECT_FALSE(thrust::cuda_cub::must_perform_optional_synchronization(goes_on));
}

}  // namespace
}  // namespace cenote::test

#endif
