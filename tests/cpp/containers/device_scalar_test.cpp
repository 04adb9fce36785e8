#include "cenote/containers/device_scalar.hpp"

#include <cmath>
#include <type_traits>

#include "cenote/surface/registry.hpp"
#include "support/containers.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

static_assert(!std::is_copy_constructible_v<device_scalar<int>> && !std::is_copy_assignable_v<device_scalar<int>>,
              "a copy names its stream");
static_assert(std::is_nothrow_move_constructible_v<device_scalar<int>> &&
              std::is_nothrow_move_assignable_v<device_scalar<int>>);

// A temporary may be gone before it is copied.
static_assert(std::is_constructible_v<device_scalar<int>, int&, stream_ref>);
static_assert(!std::is_constructible_v<device_scalar<int>, int, stream_ref>);
template <class T>
concept can_be_set_from_a_temporary =
    requires(device_scalar<T> scalar, T value) { scalar.set_value_async(std::move(value), stream_ref{}); };
static_assert(!can_be_set_from_a_temporary<int>);

class scalar : public containers {
 protected:
  const double pi_ = 3.14;
};

TEST_F(scalar, holds_one_value) {
  const device_scalar<double> scalar(pi_, a(), resource_);
  EXPECT_EQ(scalar.value(a()), pi_);
  EXPECT_TRUE(is_done(a(), 0)) << "reading waits";
  EXPECT_EQ(scalar.size(), 1u);
  EXPECT_NE(scalar.data(), nullptr);
  EXPECT_EQ(scalar.stream(), a());
  EXPECT_EQ(scalar.device(), 0);
  EXPECT_EQ(scalar.resource(), resource_);
  EXPECT_EQ(resource_->counters().bytes.current, 8);
}

TEST_F(scalar, is_not_initialised_without_a_value) {
  const call_count copies("cuMemcpyAsync");
  const call_count fills("cuMemsetD8Async");
  const device_scalar<double> scalar(a(), resource_);
  EXPECT_EQ(copies.value() + fills.value(), 0);
}

TEST_F(scalar, can_be_set_in_the_order_of_a_stream) {
  device_scalar<double> scalar(a(), resource_);
  scalar.set_value_async(pi_, a());
  EXPECT_EQ(scalar.value(a()), pi_);
  scalar.set_value_to_zero_async(a());
  EXPECT_FALSE(is_done(a(), 0)) << "setting does not wait";
  EXPECT_EQ(scalar.value(a()), 0.0);
  const double minus_zero = -0.0;
  scalar.set_value_async(minus_zero, a());
  EXPECT_TRUE(std::signbit(scalar.value(a())));
  EXPECT_EQ(scalar.value(b()), 0.0);
  EXPECT_EQ(scalar.stream(), a());
  scalar.set_stream(b());
  EXPECT_EQ(scalar.stream(), b());
}

TEST_F(scalar, takes_the_current_resource_if_it_is_given_none) {
  set_per_device_resource(0, resource_);
  const device_scalar<double> unset(a());
  const device_scalar<double> set(pi_, a());
  const device_scalar<double> twin(set, a());
  for (const auto* scalar : {&unset, &set, &twin}) EXPECT_EQ(scalar->resource(), resource_);
  reset_per_device_resource(0);
}

TEST_F(scalar, copies_the_value_of_another) {
  device_scalar<double> first(pi_, a(), resource_);
  const device_scalar<double> second(first, a(), resource_);
  first.set_value_to_zero_async(a());
  EXPECT_NE(second.data(), first.data());
  EXPECT_EQ(second.value(a()), pi_);
}

TEST_F(scalar, moves_its_value_and_leaves_none) {
  device_scalar<double> from(pi_, a(), resource_);
  auto to = std::move(from);
  EXPECT_EQ(to.value(a()), pi_);
  EXPECT_EQ(from.size(), 0u);  // NOLINT: what is left is promised
  EXPECT_EQ(from.data(), nullptr);
  EXPECT_THROW(from.value(a()), std::out_of_range);
  EXPECT_THROW(from.set_value_async(pi_, a()), std::out_of_range);
  EXPECT_THROW(from.set_value_to_zero_async(a()), std::out_of_range);
  auto& same = to;
  to = std::move(same);
  EXPECT_EQ(to.value(a()), pi_);
  from = std::move(to);
  EXPECT_EQ(from.value(a()), pi_);
}

TEST_F(scalar, leaks_nothing_when_its_copy_fails) {
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(device_scalar<double>(pi_, a(), resource_), cuda_error);
  EXPECT_EQ(blocks(), 0);
}

}  // namespace
}  // namespace cenote::test
