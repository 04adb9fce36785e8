// The guard adaptor: writes outside of blocks are found, correct programs are left alone, captures stay valid.
#include <atomic>
#include <thread>

#include "cenote/adaptors/guard_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"
#include "support/text.hpp"
#include "support/upstream.hpp"

namespace cenote::test {
namespace {

/// What a kernel does that goes astray, done before this returns.
void write(void* block, std::ptrdiff_t offset, std::size_t bytes, stream_ref stream = {}) {
  fill_async(static_cast<std::byte*>(block) + offset, 1, bytes, stream, 0);
  synchronize(stream, 0);
}

class guard : public simulated_device, public testing::WithParamInterface<bool> {
 protected:
  /// A report is made once a process: it must not be the same over both.
  static std::size_t odd_size() { return GetParam() ? 1000 : 1001; }

  static std::shared_ptr<memory_resource> source() {
    if (GetParam()) return std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt);
    return cuda();
  }
};

INSTANTIATE_TEST_SUITE_P(over, guard, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "pool" : "cuda"; });

TEST_P(guard, leaves_a_correct_program_alone) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  const cuda_stream stream(0);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{255}, std::size_t{256}, std::size_t{257}, 3 * MiB}) {
    for (const std::size_t alignment : {std::size_t{1}, std::size_t{256}, std::size_t{64} * KiB}) {
      void* const block = adaptor.allocate(stream, bytes, alignment);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % std::max(alignment, default_alignment), 0u);
      fill_async(block, 0xFF, bytes, stream, 0);
      EXPECT_TRUE(adaptor.find_overruns().empty());
      adaptor.deallocate(stream, block, bytes, alignment);
    }
  }
  EXPECT_EQ(adaptor.overruns_found(), 0u);
  EXPECT_EQ(reported.text(), "");
}

TEST_P(guard, leaves_a_block_alone_that_is_used_and_freed_on_another_stream) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  const cuda_stream first(0, cuda_stream::kind::non_blocking);
  const cuda_stream second(0, cuda_stream::kind::non_blocking);
  for (const stream_ref allocated_on : {stream_ref{}, first.view()}) {
    for (const stream_ref freed_on : {first.view(), second.view(), stream_ref{}}) {
      void* const block = adaptor.allocate(allocated_on, 1000);
      fill_async(block, 0xFF, 1000, freed_on, 0);
      adaptor.deallocate(freed_on, block, 1000);
    }
  }
  EXPECT_EQ(adaptor.overruns_found(), 0u);
  EXPECT_EQ(reported.text(), "");
}

TEST(guard_of_one_device, leaves_a_block_alone_that_is_allocated_on_a_stream_of_another) {
  if (device_count() < 2) GTEST_SKIP() << "there is one device";
  captured_stderr reported;
  guard_resource_adaptor adaptor(cuda());
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  const cuda_stream near(0, cuda_stream::kind::non_blocking);
  for (const stream_ref freed_on : {far.view(), near.view(), stream_ref{}}) {
    void* const block = adaptor.allocate(far, 1002);
    EXPECT_TRUE(adaptor.find_overruns().empty());
    adaptor.deallocate(freed_on, block, 1002);
    adaptor.deallocate(freed_on, adaptor.allocate(far, 1002), 1002);
  }
  EXPECT_EQ(adaptor.overruns_found(), 0u);
  EXPECT_EQ(reported.text(), "");
}

TEST_P(guard, leaves_a_block_alone_whose_stream_is_gone) {
  guard_resource_adaptor adaptor(source());
  void* block = nullptr;
  {
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    block = adaptor.allocate(passing, 1000);
  }
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  adaptor.deallocate(stream, block, 1000);
  EXPECT_EQ(adaptor.overruns_found(), 0u);
}

TEST_P(guard, does_not_write_to_what_the_next_owner_has) {
  guard_resource_adaptor adaptor(source());
  const cuda_stream filling(0, cuda_stream::kind::non_blocking);
  const cuda_stream freeing(0, cuda_stream::kind::non_blocking);
  const cuda_stream graph(0, cuda_stream::kind::non_blocking);
  for (const bool is_captured : {false, true}) {
    void* const block = adaptor.allocate(filling, 1000);
    if (is_captured) {
      const device_scope scope(0);
      ASSERT_EQ(cuStreamBeginCapture(graph.view().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
    }
    adaptor.deallocate(is_captured ? graph.view() : freeing.view(), block, 1000);
    if (is_captured) {
      CUgraph captured = nullptr;
      EXPECT_EQ(cuStreamEndCapture(graph.view().value(), &captured), CUDA_SUCCESS);
      EXPECT_EQ(cuGraphDestroy(captured), CUDA_SUCCESS);
    }
    EXPECT_TRUE(is_done(filling, 0)) << "its guards are filled before the memory goes back";
  }
}

TEST_P(guard, finds_each_byte_that_is_written_around_a_block) {
  constexpr std::size_t guard_bytes = 40;
  constexpr std::size_t bytes = 100;
  captured_stderr reported;
  guard_resource_adaptor adaptor(source(), guard_bytes);
  std::uint64_t expected = 0;
  for (std::ptrdiff_t i = 1; i <= static_cast<std::ptrdiff_t>(guard_bytes); ++i) {
    for (const std::ptrdiff_t offset : {-i, static_cast<std::ptrdiff_t>(bytes) + i - 1}) {
      void* const block = adaptor.allocate({}, bytes);
      write(block, offset, 1);
      const auto found = adaptor.find_overruns();
      ASSERT_EQ(found.size(), 1u) << offset;
      EXPECT_EQ(found[0].pointer, block);
      EXPECT_EQ(found[0].bytes, bytes);
      EXPECT_EQ(found[0].offset, offset);
      EXPECT_EQ(found[0].wrong_bytes, 1u);
      adaptor.deallocate({}, block, bytes);
      EXPECT_EQ(adaptor.overruns_found(), ++expected) << "once, though it was looked at twice";
    }
  }
}

TEST_P(guard, reports_at_the_free_what_was_written_and_where) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  void* const block = adaptor.allocate(stream, odd_size());
  fill_async(block, 1, odd_size() + 3, stream, 0);  // not done when the block is freed
  adaptor.deallocate(stream, block, odd_size());
  EXPECT_EQ(adaptor.overruns_found(), 1u);
  const std::string text = reported.text();
  EXPECT_TRUE(holds(text, "3 bytes were written outside of the block of " + std::to_string(odd_size()) + " bytes at " +
                              format_address(block)))
      << text;
  EXPECT_TRUE(holds(text, "the first at offset " + std::to_string(odd_size()) + ", after its end")) << text;
  EXPECT_TRUE(holds(text, "stream " + format_address(stream.value()))) << text;
}

TEST_P(guard, says_before_its_start_for_what_was_written_there) {
  guard_resource_adaptor adaptor(source());
  void* const block = adaptor.allocate({}, 1000);
  write(block, -8, 8);
  write(block, 1000, 2);
  const auto found = adaptor.find_overruns();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].offset, -8);
  EXPECT_EQ(found[0].wrong_bytes, 10u);
  EXPECT_TRUE(holds(found[0].text(), "at offset -8, before its start")) << found[0].text();
  adaptor.deallocate({}, block, 1000);
  EXPECT_TRUE(adaptor.find_overruns().empty());
}

TEST_P(guard, names_the_stack_that_a_tracking_adaptor_under_it_has) {
  guard_resource_adaptor adaptor(std::make_shared<tracking_resource_adaptor>(source(), true));
  void* const block = adaptor.allocate({}, 1000);
  write(block, 1000, 1);
  const auto found = adaptor.find_overruns();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(holds(found[0].allocated_from, "C++")) << found[0].allocated_from;
  EXPECT_TRUE(holds(found[0].text(), found[0].allocated_from));
  adaptor.deallocate({}, block, 1000);
}

TEST_P(guard, gives_back_what_it_took_whatever_the_size_of_the_free) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  void* const block = adaptor.allocate({}, odd_size(), 4096);
  adaptor.deallocate({}, block, 5, 256);  // the fixture sees that nothing is leaked
  EXPECT_TRUE(holds(reported.text(), "was freed as one of 5 bytes"));
}

TEST_P(guard, ignores_and_reports_a_pointer_that_is_not_outstanding) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  void* const block = adaptor.allocate({}, odd_size());
  adaptor.deallocate({}, block, odd_size());
  adaptor.deallocate({}, block, odd_size());
  EXPECT_TRUE(holds(reported.text(), "it is not outstanding"));
}

TEST_P(guard, leaves_a_capture_valid_and_does_not_look) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  const cuda_stream stream(0);
  void* const before = adaptor.allocate(stream, 1000);
  void* const astray = adaptor.allocate(stream, 1000);
  write(astray, 1000, 1, stream);
  ASSERT_EQ(cuStreamBeginCapture(stream.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  capture_begins(0);
  void* const during = GetParam() ? adaptor.allocate(stream, 1000) : nullptr;
  EXPECT_THROW(adaptor.find_overruns(), std::logic_error);
  if (GetParam()) adaptor.deallocate(stream, astray, 1000);
  capture_ended(0);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
  if (GetParam()) {
    EXPECT_EQ(adaptor.overruns_found(), 0u);
    EXPECT_TRUE(adaptor.find_overruns().empty()) << "what the capture allocated has no guards";
    adaptor.deallocate(stream, during, 1000);
  } else {
    adaptor.deallocate(stream, astray, 1000);
    EXPECT_EQ(adaptor.overruns_found(), 1u);
  }
  adaptor.deallocate(stream, before, 1000);
}

TEST_P(guard, gives_the_block_back_when_a_guard_cannot_be_filled) {
  guard_resource_adaptor adaptor(source());
  for (const int nth : {1, 2}) {
    cenote_sim_fail("cuMemsetD8Async", nth, CUDA_ERROR_UNKNOWN);
    EXPECT_THROW(adaptor.allocate({}, 1000), cuda_error);
  }
  adaptor.deallocate({}, adaptor.allocate({}, 1000), 1000);
}

TEST_P(guard, frees_the_block_though_its_guards_cannot_be_read) {
  captured_stderr reported;
  guard_resource_adaptor adaptor(source());
  for (const char* call : {"cuMemcpyAsync", "cuStreamSynchronize"}) {
    void* const block = adaptor.allocate({}, 1000);
    cenote_sim_fail(call, 1, GetParam() ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_NOT_PERMITTED);
    adaptor.deallocate({}, block, 1000);
  }
  EXPECT_TRUE(holds(reported.text(), "cuStreamSynchronize failed"));
}

TEST_P(guard, leaks_a_block_whose_free_cannot_be_ordered_after_its_fill) {
  constexpr std::size_t guard_bytes = guard_resource_adaptor::default_guard_bytes;
  const auto upstream = std::make_shared<statistics_resource_adaptor>(source());
  guard_resource_adaptor adaptor(upstream);
  const cuda_stream filling(0, cuda_stream::kind::non_blocking);
  const cuda_stream freeing(0, cuda_stream::kind::non_blocking);
  captured_stderr reported;
  for (const char* call : {"cuEventQuery", "cuStreamWaitEvent"}) {
    void* const block = adaptor.allocate(filling, 1000);
    cenote_sim_fail(call, 1, GetParam() ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_NOT_PERMITTED);
    cenote_sim_fail("cuEventSynchronize", 1, GetParam() ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_NOT_PERMITTED);
    adaptor.deallocate(freeing, block, 1000);
    EXPECT_EQ(upstream->counters().count.current, 1) << "freed while its guards were being filled";
    upstream->deallocate(filling, static_cast<std::byte*>(block) - guard_bytes, 1000 + 2 * guard_bytes);
  }
  const std::string text = reported.text();
  EXPECT_TRUE(holds(text, "a block is leaked, as freeing it failed: cuEventSynchronize failed")) << text;
}

TEST_P(guard, never_wraps_a_size) {
  guard_resource_adaptor adaptor(source(), guard_resource_adaptor::most_guard_bytes);
  for (const std::size_t bytes : {max_allocation, max_allocation - 1, max_allocation - 32 * MiB}) {
    for (const std::size_t alignment : {std::size_t{256}, std::size_t{1} << 40, std::size_t{1} << 62}) {
      EXPECT_EQ(adaptor.try_allocate({}, bytes, alignment), nullptr);
      EXPECT_EQ(adaptor.try_allocate({}, 1, std::size_t{1} << 62), nullptr);
    }
  }
}

TEST(guard_sizes, are_at_least_a_byte_and_not_huge) {
  EXPECT_THROW(guard_resource_adaptor(cuda(), 0), std::invalid_argument);
  EXPECT_THROW(guard_resource_adaptor(cuda(), guard_resource_adaptor::most_guard_bytes + 1), std::invalid_argument);
  EXPECT_EQ(guard_resource_adaptor(cuda(), 1).guard_bytes(), 1u);
  EXPECT_EQ(guard_resource_adaptor(cuda()).specification(), "guard");
  EXPECT_EQ(guard_resource_adaptor(cuda(), 4096).specification(), "guard:bytes=4KiB");
}

TEST_P(guard, may_be_looked_at_while_others_allocate_and_free) {
  guard_resource_adaptor adaptor(source());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      const cuda_stream stream(0);
      std::mt19937 dice(static_cast<unsigned>(i));
      while (!stop) {
        const std::size_t bytes = 1 + dice() % 5000;
        void* const block = adaptor.allocate(stream, bytes);
        fill_async(block, 0xFF, bytes, stream, 0);
        adaptor.deallocate(stream, block, bytes);
      }
    });
  }
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(adaptor.find_overruns().empty());
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(adaptor.overruns_found(), 0u);
}

}  // namespace
}  // namespace cenote::test
