#include "cenote/containers/device_uvector.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <ranges>
#include <span>
#include <type_traits>

#include "cenote/surface/registry.hpp"
#include "support/containers.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

static_assert(!std::is_copy_constructible_v<device_uvector<int>> && !std::is_copy_assignable_v<device_uvector<int>>,
              "a copy names its stream");
static_assert(std::is_nothrow_move_constructible_v<device_uvector<int>> &&
              std::is_nothrow_move_assignable_v<device_uvector<int>>);
static_assert(std::ranges::contiguous_range<device_uvector<int>>);
static_assert(std::is_convertible_v<device_uvector<int>&, std::span<int>>);
static_assert(std::is_convertible_v<device_uvector<int>&, std::span<const int>>);
static_assert(std::is_convertible_v<const device_uvector<int>&, std::span<const int>>);
static_assert(!std::is_convertible_v<const device_uvector<int>&, std::span<int>>, "elements of a const row are const");

template <class T>
concept element_can_be_set_from_a_temporary =
    requires(device_uvector<T> row, T value) { row.set_element_async(0, std::move(value), stream_ref{}); };
static_assert(!element_can_be_set_from_a_temporary<int>);

/// What no default constructor makes.
struct point {
  point(float x, double y) : x(x), y(y) {}
  float x;
  double y;
};

struct alignas(4096) page {
  unsigned char bytes[4096];
};

class uvector : public containers {
 protected:
  /// 0, 1, 2 …
  device_uvector<int> counting(std::size_t size, stream_ref stream) {
    std::vector<int> numbers(size);
    std::iota(numbers.begin(), numbers.end(), 0);
    device_uvector<int> row(size, stream, resource_);
    copy_async(row.data(), numbers.data(), size * sizeof(int), stream, 0);
    synchronize(stream, 0);
    return row;
  }

  static std::vector<int> values(const device_uvector<int>& row, stream_ref stream) {
    std::vector<int> numbers(row.size());
    copy_async(numbers.data(), row.data(), numbers.size() * sizeof(int), stream, 0);
    synchronize(stream, 0);
    return numbers;
  }

  static std::vector<int> count_to(std::size_t size) {
    std::vector<int> numbers(size);
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }
};

TEST_F(uvector, has_the_size_that_was_asked_for) {
  device_uvector<double> row(100, a(), resource_);
  EXPECT_EQ(row.size(), 100u);
  EXPECT_EQ(row.ssize(), 100);
  EXPECT_EQ(row.capacity(), 100u);
  EXPECT_FALSE(row.is_empty());
  EXPECT_NE(row.data(), nullptr);
  EXPECT_EQ(row.stream(), a());
  EXPECT_EQ(row.device(), 0);
  EXPECT_EQ(row.resource(), resource_);
  EXPECT_EQ(resource_->counters().bytes.current, 800);
}

TEST_F(uvector, is_not_initialised) {
  const call_count copies("cuMemcpyAsync");
  const call_count fills("cuMemsetD8Async");
  device_uvector<int> row(1000, a(), resource_);
  row.reserve(10, a());
  EXPECT_EQ(copies.value() + fills.value(), 0);
}

TEST_F(uvector, of_no_elements_has_no_memory) {
  const device_uvector<int> none(0, a(), resource_);
  EXPECT_TRUE(none.is_empty());
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.begin(), none.end());
  EXPECT_THROW(none.front_element(a()), std::out_of_range);
  EXPECT_THROW(none.back_element(a()), std::out_of_range);
}

TEST_F(uvector, whose_bytes_would_wrap_is_refused) {
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  auto row = counting(10, a());
  for (const std::size_t count : {most, most / 2, most / sizeof(int) + 1}) {
    EXPECT_THROW(device_uvector<int>(count, a(), resource_), std::invalid_argument) << count;
    EXPECT_THROW(row.resize(count, b()), std::invalid_argument);
    EXPECT_THROW(row.reserve(count, b()), std::invalid_argument);
  }
  EXPECT_THROW(device_uvector<int>(most / sizeof(int), a(), resource_), out_of_memory)
      << "it is large, but no nonsense";
  EXPECT_EQ(row.stream(), a());
  EXPECT_EQ(values(row, a()), count_to(10));
  try {
    row.resize(most, a());
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("element count 18446744073709551615 of 4 bytes wraps"), std::string::npos);
  }
}

TEST_F(uvector, takes_the_current_resource_if_it_is_given_none) {
  set_per_device_resource(0, resource_);
  const device_uvector<int> row(10, a());
  const device_uvector<int> twin(row, a());
  EXPECT_EQ(row.resource(), resource_);
  EXPECT_EQ(twin.resource(), resource_);
  reset_per_device_resource(0);
}

TEST_F(uvector, elements_can_be_read_and_set) {
  auto row = counting(100, a());
  EXPECT_EQ(row.front_element(a()), 0);
  EXPECT_EQ(row.element(42, a()), 42);
  EXPECT_EQ(row.back_element(a()), 99);
  row.set_element(42, -7, a());  // it waits: a temporary lives long enough
  const int last = 5;
  row.set_element_async(99, last, a());
  row.set_element_to_zero_async(1, a());
  auto expected = count_to(100);
  expected[42] = -7;
  expected[99] = 5;
  expected[1] = 0;
  EXPECT_EQ(values(row, a()), expected);
  EXPECT_EQ(row.element_ptr(3), row.data() + 3);
}

TEST_F(uvector, elements_are_set_in_the_order_of_the_stream) {
  device_uvector<int> row(1, a(), resource_);
  cenote_sim_drain();
  row.set_element_to_zero_async(0, a());
  EXPECT_FALSE(is_done(a(), 0)) << "nothing waits";
  row.set_element(0, 9, a());
  EXPECT_TRUE(is_done(a(), 0)) << "this waits";
  row.set_element_to_zero_async(0, a());
  EXPECT_EQ(row.element(0, a()), 0);
  EXPECT_TRUE(is_done(a(), 0));
  EXPECT_EQ(row.stream(), a());
}

TEST_F(uvector, setting_an_element_on_another_stream_leaves_its_own) {
  auto row = counting(8, a());
  row.set_element(0, 1, b());
  EXPECT_EQ(row.element(0, b()), 1);
  EXPECT_EQ(row.stream(), a());
  row.set_stream(b());
  EXPECT_EQ(row.stream(), b());
}

TEST_F(uvector, has_no_element_beyond_its_size) {
  auto row = counting(10, a());
  row.resize(5, a());
  const auto& fixed = row;
  const int value = 1;
  for (const std::size_t index : {std::size_t{5}, std::size_t{9}, std::numeric_limits<std::size_t>::max()}) {
    EXPECT_THROW(row.element_ptr(index), std::out_of_range);
    EXPECT_THROW(fixed.element_ptr(index), std::out_of_range);
    EXPECT_THROW(row.element(index, a()), std::out_of_range);
    EXPECT_THROW(row.set_element(index, value, a()), std::out_of_range);
    EXPECT_THROW(row.set_element_async(index, value, a()), std::out_of_range);
    EXPECT_THROW(row.set_element_to_zero_async(index, a()), std::out_of_range);
  }
  EXPECT_EQ(values(row, a()), count_to(5));
}

TEST_F(uvector, keeps_the_sign_of_minus_zero) {
  device_uvector<double> row(2, a(), resource_);
  const double minus_zero = -0.0;
  row.set_element(0, minus_zero, a());
  row.set_element_async(1, minus_zero, a());
  EXPECT_TRUE(std::signbit(row.element(0, a())));
  EXPECT_TRUE(std::signbit(row.element(1, a())));
  row.set_element_to_zero_async(0, a());
  EXPECT_FALSE(std::signbit(row.element(0, a())));
}

TEST_F(uvector, elements_need_no_default_constructor) {
  device_uvector<point> row(3, a(), resource_);
  const point corner(1.5F, -2.25);
  row.set_element(2, corner, a());
  EXPECT_EQ(row.back_element(a()).x, 1.5F);
  EXPECT_EQ(row.back_element(a()).y, -2.25);
}

TEST_F(uvector, elements_lie_as_their_type_is_aligned) {
  device_uvector<page> row(2, a(), resource_);
  const device_uvector<char> between(1, a(), resource_);
  const device_uvector<page> copied(row, a(), resource_);
  row.resize(5, a());
  for (const auto* one : {&std::as_const(row), &copied}) {
    EXPECT_TRUE(is_aligned(one->data(), alignof(page)));
    EXPECT_TRUE(is_aligned(one->element_ptr(1), alignof(page)));
  }
  page full;
  std::fill(std::begin(full.bytes), std::end(full.bytes), static_cast<unsigned char>(3));
  row.set_element(4, full, a());
  EXPECT_EQ(row.back_element(a()).bytes[4095], 3);
  const auto released = row.release();
  EXPECT_EQ(released.alignment(), alignof(page));
}

TEST_F(uvector, keeps_its_elements_when_it_grows) {
  auto row = counting(100, a());
  row.resize(10'000, b());
  EXPECT_EQ(row.size(), 10'000u);
  EXPECT_EQ(row.stream(), b());
  row.resize(100, b());
  EXPECT_EQ(row.capacity(), 10'000u);
  EXPECT_EQ(values(row, b()), count_to(100));
  row.shrink_to_fit(b());
  EXPECT_EQ(row.capacity(), 100u);
  EXPECT_EQ(values(row, b()), count_to(100));
  EXPECT_EQ(blocks(), 1);
}

TEST_F(uvector, reserves_without_changing_its_size) {
  auto row = counting(10, a());
  row.reserve(100, a());
  EXPECT_EQ(row.size(), 10u);
  EXPECT_EQ(row.capacity(), 100u);
  const auto* const memory = row.data();
  row.resize(100, a());
  EXPECT_EQ(row.data(), memory);
  row.reserve(1, a());
  EXPECT_EQ(row.capacity(), 100u);
}

TEST_F(uvector, is_as_it_was_when_growing_fails) {
  auto row = counting(100, a());
  const auto* const memory = row.data();
  const auto is_as_it_was = [&] {
    return row.data() == memory && row.size() == 100 && row.capacity() == 100 && row.stream() == a() && blocks() == 1;
  };
  EXPECT_THROW(row.resize(1024 * GiB, b()), out_of_memory);
  EXPECT_TRUE(is_as_it_was());
  EXPECT_THROW(row.reserve(1024 * GiB, b()), out_of_memory);
  EXPECT_TRUE(is_as_it_was());
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(row.resize(1000, b()), cuda_error);
  EXPECT_TRUE(is_as_it_was());
  EXPECT_EQ(values(row, a()), count_to(100));
  row.resize(50, a());
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(row.shrink_to_fit(b()), cuda_error);
  EXPECT_EQ(row.capacity(), 100u);
  EXPECT_EQ(values(row, a()), count_to(50));
}

TEST_F(uvector, copies_another_one) {
  auto first = counting(100, a());
  first.reserve(200, a());
  const device_uvector<int> second(first, a(), resource_);
  EXPECT_NE(second.data(), first.data());
  EXPECT_EQ(second.capacity(), 100u);
  EXPECT_EQ(values(second, a()), count_to(100));
}

TEST_F(uvector, leaks_nothing_when_a_copy_fails) {
  const auto first = counting(100, a());
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(device_uvector<int>(first, a(), resource_), cuda_error);
  EXPECT_EQ(blocks(), 1);
}

TEST_F(uvector, moves_its_elements_and_leaves_an_empty_one) {
  auto from = counting(100, a());
  auto to = std::move(from);
  EXPECT_EQ(values(to, a()), count_to(100));
  EXPECT_TRUE(from.is_empty());  // NOLINT: what is left is promised
  EXPECT_EQ(from.data(), nullptr);
  EXPECT_EQ(from.capacity(), 0u);
  EXPECT_THROW(from.element(0, a()), std::out_of_range);
  from.resize(3, a());
  EXPECT_EQ(from.size(), 3u) << "it can be used again";
  from = std::move(to);
  EXPECT_EQ(values(from, a()), count_to(100));
  EXPECT_EQ(blocks(), 1) << "what it had before is freed";
  auto& same = from;
  from = std::move(same);
  EXPECT_EQ(values(from, a()), count_to(100)) << "moved into itself";
}

TEST_F(uvector, releases_its_memory_as_a_buffer) {
  auto row = counting(100, a());
  const void* const memory = row.data();
  const device_buffer buffer = row.release();
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.size(), 100 * sizeof(int));
  EXPECT_EQ(buffer.stream(), a());
  EXPECT_TRUE(row.is_empty());
  EXPECT_EQ(blocks(), 1);
}

TEST_F(uvector, iterates_over_its_elements_in_both_directions) {
  auto row = counting(10, a());
  const auto& fixed = row;
  EXPECT_EQ(row.begin(), row.data());
  EXPECT_EQ(row.end() - row.begin(), 10);
  EXPECT_EQ(fixed.begin(), row.cbegin());
  EXPECT_EQ(fixed.end(), row.cend());
  EXPECT_EQ(row.rend() - row.rbegin(), 10);
  EXPECT_EQ(&*row.rbegin(), row.element_ptr(9));
  EXPECT_EQ(&*(row.rend() - 1), row.element_ptr(0));
  EXPECT_EQ(fixed.rbegin(), row.crbegin());
  EXPECT_EQ(fixed.rend(), row.crend());
}

TEST_F(uvector, is_seen_as_a_span) {
  auto row = counting(10, a());
  const std::span<int> writable = row;
  const std::span<const int> readable = std::as_const(row);
  EXPECT_EQ(writable.data(), row.data());
  EXPECT_EQ(writable.size(), 10u);
  EXPECT_EQ(readable.data(), row.data());
  EXPECT_EQ(readable.size(), 10u);
}

TEST_F(uvector, is_freed_on_the_stream_that_it_has_last) {
  const auto& pool = dynamic_cast<pool_memory_resource&>(*resource_->upstream());
  const void* memory = nullptr;
  {
    device_uvector<char> large(31 * MiB, a(), resource_);
    memory = large.data();
    large.set_stream(b());
  }
  const auto own_before = pool.counters().from_own_stream;
  const device_uvector<char> again(31 * MiB, b(), resource_);
  EXPECT_EQ(again.data(), memory);
  EXPECT_EQ(pool.counters().from_own_stream, own_before + 1) << "B owned the freed block: no wait is needed";
}

template <class T>
class uvector_of : public uvector {};
using element_types = testing::Types<std::int8_t, std::int32_t, std::uint64_t, float, double>;
TYPED_TEST_SUITE(uvector_of, element_types);

TYPED_TEST(uvector_of, any_number_gives_back_what_was_set) {
  const stream_ref stream = this->a();
  device_uvector<TypeParam> row(1000, stream, this->resource_);
  std::mt19937 random(7);
  std::vector<TypeParam> model(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    model[i] = static_cast<TypeParam>(random() % 128);
    row.set_element_async(i, model[i], stream);
  }
  row.resize(2000, stream);
  for (std::size_t i = 0; i < model.size(); ++i) EXPECT_EQ(row.element(i, stream), model[i]);
}

}  // namespace
}  // namespace cenote::test
