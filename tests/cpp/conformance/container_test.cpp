// Containers on every resource and every adaptor of the table (stacks.hpp), on the simulated device and on a real one.
#include <numeric>
#include <thread>

#include "cenote/containers/device_scalar.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

class container : public conformance {
 protected:
  /// Bytes that differ from their neighbours.
  static std::vector<unsigned char> pattern(std::size_t size) {
    std::vector<unsigned char> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<unsigned char>(i * 7 + i / 251);
    return bytes;
  }
};

TEST_P(container, buffer_keeps_its_bytes_while_it_grows_shrinks_and_moves) {
  const auto bytes = pattern(10'000);
  device_buffer buffer(bytes.data(), bytes.size(), stream(), resource_);
  EXPECT_EQ(buffer.resource(), resource_);
  EXPECT_EQ(read(buffer.data(), bytes.size(), stream()), bytes);
  buffer.resize(1 * MiB, stream());
  EXPECT_EQ(read(buffer.data(), bytes.size(), stream()), bytes);
  buffer.resize(bytes.size(), stream());
  buffer.shrink_to_fit(stream());
  EXPECT_EQ(buffer.capacity(), bytes.size());
  device_buffer moved = std::move(buffer);
  buffer = device_buffer(moved, stream(), resource_);
  moved = std::move(buffer);
  EXPECT_EQ(read(moved.data(), moved.size(), stream()), bytes);
  moved.close();
  EXPECT_EQ(moved.data(), nullptr);
}

TEST_P(container, buffer_of_any_alignment_has_it_after_growing_too) {
  for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
    device_buffer buffer(1000, alignment, stream(), resource_);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % alignment, 0u);
    buffer.resize(50'000, stream());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % alignment, 0u);
  }
}

TEST_P(container, of_no_bytes_needs_no_memory) {
  device_buffer buffer(0, stream(), resource_);
  device_uvector<int> row(0, stream(), resource_);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(row.data(), nullptr);
  row.resize(10, stream());
  EXPECT_NE(row.data(), nullptr);
}

TEST_P(container, elements_are_set_and_read) {
  device_uvector<std::int64_t> row(1000, stream(), resource_);
  for (const std::size_t i : {0u, 1u, 499u, 999u}) row.set_element(i, static_cast<std::int64_t>(i) - 500, stream());
  row.set_element_to_zero_async(1, stream());
  row.resize(2000, stream());
  EXPECT_EQ(row.front_element(stream()), -500);
  EXPECT_EQ(row.element(1, stream()), 0);
  EXPECT_EQ(row.element(499, stream()), -1);
  device_uvector<std::int64_t> copied(row, stream(), resource_);
  row = std::move(copied);
  EXPECT_EQ(row.element(999, stream()), 499);
}

TEST_P(container, scalar_keeps_its_value) {
  const double third = 1.0 / 3;
  device_scalar<double> scalar(third, stream(), resource_);
  EXPECT_EQ(scalar.value(stream()), third);
  scalar.set_value_to_zero_async(stream());
  EXPECT_EQ(scalar.value(stream()), 0);
  scalar.set_value_async(third, stream());
  const device_scalar<double> copied(scalar, stream(), resource_);
  EXPECT_EQ(copied.value(stream()), third);
}

TEST_P(container, lives_on_each_stream) {
  for (const stream_ref on :
       {stream_ref{}, legacy_default_stream(), per_thread_default_stream(), default_stream(), stream()}) {
    device_uvector<int> row(100, on, resource_);
    row.set_element(3, 4, on);
    row.resize(10'000, on);
    EXPECT_EQ(row.element(3, on), 4);
    EXPECT_EQ(row.stream(), on);
  }
}

TEST_P(container, is_as_it_was_when_growing_fails) {
  const auto bytes = pattern(5000);
  device_buffer buffer(bytes.data(), bytes.size(), stream(), resource_);
  const void* const memory = buffer.data();
  EXPECT_THROW(buffer.resize(std::size_t{1} << 50, stream()), out_of_memory);
  EXPECT_THROW(buffer.reserve(~std::size_t{0}, stream()), std::bad_alloc);
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.size(), bytes.size());
  EXPECT_EQ(read(buffer.data(), bytes.size(), stream()), bytes);
  EXPECT_THROW(device_buffer(std::size_t{1} << 50, stream(), resource_), out_of_memory);
}

TEST_P(container, gives_its_memory_back_on_the_stream_that_used_it_last) {
  const cuda_stream other(0, cuda_stream::kind::non_blocking);
  const auto bytes = pattern(100'000);
  std::vector<unsigned char> seen(bytes.size());
  for (int i = 0; i < 4; ++i) {
    device_buffer buffer(bytes.data(), bytes.size(), stream(), resource_);
    order_after(other, stream(), 0);
    copy_async(seen.data(), buffer.data(), seen.size(), other, 0);
    buffer.set_stream(other);
  }
  synchronize(other, 0);
  EXPECT_EQ(seen, bytes);
}

TEST_P(container, keeps_its_resource_alive) {
  const auto bytes = pattern(1000);
  auto gone = GetParam().make(0);
  const device_buffer buffer(bytes.data(), bytes.size(), stream(), gone);
  gone.reset();
  EXPECT_EQ(read(buffer.data(), bytes.size(), stream()), bytes);
}

TEST_P(container, each_thread_has_its_own) {
  std::vector<std::thread> workers;
  for (int t = 0; t < 4; ++t) {
    workers.emplace_back([&, t] {
      const cuda_stream own(0, cuda_stream::kind::non_blocking);
      for (std::size_t i = 1; i <= 15; ++i) {
        device_uvector<int> row(i * 100, own, resource_);
        row.set_element(i, t, own);
        row.resize(row.size() * 2, own);
        EXPECT_EQ(row.element(i, own), t);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

INSTANTIATE_TEST_SUITE_P(of, container, testing::ValuesIn(every_stack()), stack_name);

}  // namespace
}  // namespace cenote::test
