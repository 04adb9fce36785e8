// The default stream of a C++ program. CMake builds this file twice: as it is, and with
// CUDA_API_PER_THREAD_DEFAULT_STREAM.
#include <optional>
#include <thread>

#include "cenote/containers/device_scalar.hpp"
#include "cenote/driver/stream_id.hpp"
#include "support/containers.hpp"

namespace cenote::test {
namespace {

#ifdef CUDA_API_PER_THREAD_DEFAULT_STREAM
constexpr bool is_per_thread = true;
#else
constexpr bool is_per_thread = false;
#endif

class the_default_stream : public containers {};

TEST_F(the_default_stream, is_the_one_that_the_program_is_compiled_for) {
  EXPECT_EQ(default_stream().is_per_thread_default(), is_per_thread);
  EXPECT_EQ(default_stream().is_legacy_default(), !is_per_thread);
}

TEST_F(the_default_stream, is_each_threads_own_if_the_program_is_compiled_so) {
  stream_id elsewhere;
  std::thread([&] { elsewhere = identify(default_stream(), 0); }).join();
  EXPECT_EQ(identify(default_stream(), 0) != elsewhere, is_per_thread);
}

TEST_F(the_default_stream, orders_what_containers_do) {
  const int first = 3;
  device_uvector<int> row(1000, default_stream(), resource_);
  row.set_element_async(0, first, default_stream());
  row.resize(5000, default_stream());
  const device_uvector<int> copied(row, default_stream(), resource_);
  row.set_element_to_zero_async(0, default_stream());
  EXPECT_EQ(copied.element(0, default_stream()), 3);
  EXPECT_EQ(row.element(0, default_stream()), 0);
  const device_scalar<int> scalar(first, default_stream(), resource_);
  EXPECT_EQ(scalar.value(default_stream()), 3);
  EXPECT_EQ(scalar.stream(), default_stream());
}

TEST_F(the_default_stream, takes_back_what_was_freed_on_it_without_a_wait) {
  const auto& pool = dynamic_cast<pool_memory_resource&>(*resource_->upstream());
  std::optional<device_buffer> buffer(std::in_place, 31 * MiB, default_stream(), resource_);
  const void* const memory = buffer->data();
  buffer.reset();
  const auto own_before = pool.counters().from_own_stream;
  const device_buffer again(31 * MiB, default_stream(), resource_);
  EXPECT_EQ(again.data(), memory);
  EXPECT_EQ(pool.counters().from_own_stream, own_before + 1);
}

TEST_F(the_default_stream, may_be_used_by_many_threads_at_once) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        device_uvector<int> row(1 + i * 10, default_stream(), resource_);
        row.set_element(i, t, default_stream());
        row.resize(row.size() * 2, default_stream());
        ASSERT_EQ(row.element(i, default_stream()), t);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace cenote::test
