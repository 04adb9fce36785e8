// Containers of one device, created, moved, resized and destroyed while the other device is current, on every resource
// and every adaptor of the table (stacks.hpp): two simulated devices, or two real ones where there are two.
#include <numeric>
#include <optional>

#include "cenote/containers/device_scalar.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/registry.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

constexpr int its_device = 1;
constexpr int other_device = 0;
constexpr int unknown_error = 999;  // CUDA_ERROR_UNKNOWN

class two_devices : public any_device {
 protected:
  void SetUp() override {
    any_device::SetUp();
    if (device_count() < 2) GTEST_SKIP() << "there is one device";
  }
};

class on_another_device : public two_devices, public testing::WithParamInterface<stack> {
 protected:
  void SetUp() override {
    two_devices::SetUp();
    if (IsSkipped()) return;
    if (const std::string missing = GetParam().missing(its_device); !missing.empty()) GTEST_SKIP() << missing;
    resource_ = GetParam().make(its_device);
    stream_.emplace(its_device, cuda_stream::kind::non_blocking);
    elsewhere_.emplace(other_device);
  }

  void TearDown() override {
    if (resource_ != nullptr) {
      EXPECT_EQ(current_device(), other_device) << "the caller's device is put back";
      elsewhere_.reset();
      resource_->check();
      EXPECT_EQ(in_use_when_trimmed(*resource_), 0u) << "freed once";
      EXPECT_EQ(resource_.use_count(), 1) << "no container is left that keeps it";
    }
    stream_.reset();
    resource_.reset();
    std::remove(log_file(".dev1").c_str());
    two_devices::TearDown();
  }

  /// Checks where memory is before it is used.
  template <class Container>
  static void expect_its_device(const Container& container) {
    EXPECT_EQ(container.device(), its_device);
    // The driver knows nothing of the heap; a real one says of managed memory where it prefers to be.
    if (GetParam().is_heap() || (simulator() == nullptr && GetParam().is_host_accessible())) return;
    EXPECT_EQ(device_of(container.data(), its_device), its_device);
  }

  stream_ref stream() const { return *stream_; }

  std::shared_ptr<memory_resource> resource_;
  std::optional<cuda_stream> stream_;
  std::optional<device_scope> elsewhere_;
};

TEST_P(on_another_device, a_buffer_is_created_resized_moved_and_destroyed) {
  std::vector<unsigned char> bytes(1000);
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(0));
  device_buffer buffer(bytes.data(), bytes.size(), stream(), resource_);
  expect_its_device(buffer);
  buffer.resize(100'000, stream());
  expect_its_device(buffer);
  buffer.resize(1000, stream());
  buffer.shrink_to_fit(stream());
  expect_its_device(buffer);
  device_buffer moved = std::move(buffer);
  expect_its_device(moved);
  buffer = device_buffer(moved, stream(), resource_);
  expect_its_device(buffer);
  moved = std::move(buffer);
  EXPECT_EQ(read(moved.data(), moved.size(), stream(), its_device), bytes);
  moved.close();
  EXPECT_EQ(moved.device(), its_device);
}

TEST_P(on_another_device, a_uvector_is_created_resized_moved_and_destroyed) {
  device_uvector<double> row(100, stream(), resource_);
  expect_its_device(row);
  for (std::size_t i = 0; i < row.size(); ++i) row.set_element(i, static_cast<double>(i), stream());
  row.set_element_to_zero_async(50, stream());
  row.resize(10'000, stream());
  expect_its_device(row);
  row.resize(100, stream());
  row.shrink_to_fit(stream());
  expect_its_device(row);
  device_uvector<double> moved = std::move(row);
  row = device_uvector<double>(moved, stream(), resource_);
  moved = std::move(row);
  expect_its_device(moved);
  EXPECT_EQ(moved.element(49, stream()), 49);
  EXPECT_EQ(moved.element(50, stream()), 0);
  const device_buffer released = moved.release();
  expect_its_device(released);
}

TEST_P(on_another_device, a_scalar_is_created_set_moved_and_destroyed) {
  const int seven = 7;
  device_scalar<int> scalar(seven, stream(), resource_);
  expect_its_device(scalar);
  device_scalar<int> moved = std::move(scalar);
  scalar = device_scalar<int>(moved, stream(), resource_);
  moved.set_value_to_zero_async(stream());
  EXPECT_EQ(moved.value(stream()), 0);
  moved = std::move(scalar);
  expect_its_device(moved);
  EXPECT_EQ(moved.value(stream()), 7);
}

TEST_P(on_another_device, a_container_on_a_default_stream_uses_that_of_its_device) {
  for (const stream_ref one : {stream_ref{}, legacy_default_stream(), per_thread_default_stream(), default_stream()}) {
    device_uvector<int> row(100, one, resource_);
    row.set_element(3, 4, one);
    row.resize(10'000, one);
    expect_its_device(row);
    EXPECT_EQ(row.element(3, one), 4);
  }
}

TEST_P(on_another_device, memory_is_freed_when_growing_fails) {
  device_uvector<int> row(100, stream(), resource_);
  row.set_element(99, 5, stream());
  EXPECT_THROW(row.resize(std::size_t{1} << 48, stream()), out_of_memory);
  if (simulator() != nullptr) {
    simulator()->fail("cuMemcpyAsync", 1, unknown_error);
    EXPECT_THROW(row.resize(1000, stream()), cuda_error);
  }
  expect_its_device(row);
  EXPECT_EQ(row.back_element(stream()), 5);
}

TEST_P(on_another_device, contents_are_copied_from_the_current_one) {
  const auto here = std::make_shared<cuda_memory_resource>(other_device);
  const int seven = 7;
  device_uvector<int> source(10, {}, here);
  source.set_element(9, seven, {});
  device_uvector<int> target(source, stream(), resource_);
  expect_its_device(target);
  EXPECT_EQ(target.element(9, stream()), seven);
  target = std::move(source);
  EXPECT_EQ(target.device(), other_device) << "memory that is moved stays where it is";
  EXPECT_EQ(target.resource(), here);
  EXPECT_EQ(target.element(9, {}), seven);
}

INSTANTIATE_TEST_SUITE_P(of, on_another_device, testing::ValuesIn(every_stack()), stack_name);

TEST_F(two_devices, each_give_a_container_their_current_resource) {
  for (const int device : {0, 1}) {
    const device_scope scope(device);
    const device_uvector<int> row(10, default_stream());
    EXPECT_EQ(row.device(), device);
    EXPECT_EQ(row.resource(), get_per_device_resource(device));
    EXPECT_EQ(device_of(row.data(), device), device);
  }
  reset_all_device_resources();
}

}  // namespace
}  // namespace cenote::test
