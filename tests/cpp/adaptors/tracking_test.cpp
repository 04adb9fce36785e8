// What the tracking adaptor remembers and reports.
#include <regex>
#include <thread>

#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"
#include "support/text.hpp"
#include "support/upstream.hpp"

namespace cenote::test {
namespace {

class tracking : public simulated_device, public testing::WithParamInterface<bool> {
 protected:
  static std::shared_ptr<memory_resource> source() {
    if (GetParam()) return std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt);
    return cuda();
  }
};

INSTANTIATE_TEST_SUITE_P(over, tracking, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "pool" : "cuda"; });

TEST_P(tracking, knows_what_is_outstanding_in_the_order_of_allocation) {
  tracking_resource_adaptor adaptor(source());
  const cuda_stream stream(0);
  EXPECT_EQ(adaptor.outstanding_allocations_str(), "");
  void* const first = adaptor.allocate({}, 100);
  void* const second = adaptor.allocate(stream.view(), 200);
  void* const third = adaptor.allocate({}, 300);
  adaptor.deallocate({}, first, 100);
  EXPECT_EQ(adaptor.allocated_bytes(), 500u);
  const auto outstanding = adaptor.outstanding_allocations();
  ASSERT_EQ(outstanding.size(), 2u);
  EXPECT_EQ(outstanding[0].pointer, second);
  EXPECT_EQ(outstanding[0].bytes, 200u);
  EXPECT_EQ(outstanding[0].stream, stream.view());
  EXPECT_EQ(outstanding[0].thread, gettid());
  EXPECT_EQ(outstanding[1].pointer, third);
  EXPECT_TRUE(std::regex_match(
      adaptor.outstanding_allocations_str(),
      std::regex("0x[0-9a-f]+: 200 B, stream 0x[0-9a-f]+, thread \\d+\n0x[0-9a-f]+: 300 B, stream 0x0, thread \\d+\n")))
      << adaptor.outstanding_allocations_str();
  adaptor.deallocate({}, third, 300);
  adaptor.deallocate(stream.view(), second, 200);
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
  EXPECT_EQ(adaptor.outstanding_allocations_str(), "");
  EXPECT_EQ(adaptor.leak_report(), "");
}

TEST_P(tracking, counts_nothing_that_failed) {
  tracking_resource_adaptor adaptor(source(), true);
  EXPECT_EQ(adaptor.try_allocate({}, 1024 * GiB), nullptr);
  EXPECT_EQ(adaptor.try_allocate({}, 0), nullptr);
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(adaptor.allocate({}, 100), cuda_error);
  cenote_sim_fail("cuMemAlloc", 0, 0);
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
  EXPECT_TRUE(adaptor.outstanding_allocations().empty());
}

TEST_P(tracking, says_how_much_leaks_also_without_stacks) {
  tracking_resource_adaptor adaptor(source());
  void* const block = adaptor.allocate({}, 100);
  EXPECT_TRUE(holds(adaptor.leak_report(), "1 allocation, 100 B (100 bytes)")) << adaptor.leak_report();
  EXPECT_EQ(adaptor.outstanding_allocations()[0].stack, nullptr);
  adaptor.deallocate({}, block, 100);
}

TEST_P(tracking, asks_the_interpreter_for_nothing_under_its_own_lock) {
  std::shared_ptr<tracking_resource_adaptor> adaptor;
  const interpreter curious{"Here", [&] { return std::to_string(adaptor->allocated_bytes()); }, nullptr};
  adaptor = std::make_shared<tracking_resource_adaptor>(source(), true, curious);
  adaptor->deallocate({}, adaptor->allocate({}, 100), 100);
}

TEST(tracked, frees_of_an_unknown_pointer_are_reported_and_passed_on) {
  const auto upstream = std::make_shared<program_resource>(cuda());
  void* const block = upstream->allocate({}, 100);
  tracking_resource_adaptor adaptor(upstream);
  void* const own = adaptor.allocate({}, 300);
  captured_stderr reported;
  adaptor.deallocate({}, block, 100);  // found leaked if it was not passed on
  const std::string text = reported.text();
  EXPECT_TRUE(holds(text, "(100 bytes) was freed, but it is not outstanding")) << text;
  EXPECT_EQ(upstream->last_bytes, 100u);
  EXPECT_EQ(adaptor.allocated_bytes(), 300u);
  adaptor.deallocate({}, own, 300);
}

TEST(tracked, what_is_outstanding_at_the_end_is_reported) {
  const auto source = cuda();
  captured_stderr reported;
  void* block = nullptr;
  {
    tracking_resource_adaptor adaptor(source, true);
    block = adaptor.allocate({}, 1234);
  }
  const std::string text = reported.text();
  EXPECT_TRUE(holds(text, "1 allocation, 1.21 KiB (1234 bytes) from")) << text;
  source->deallocate({}, block, 1234);
}

TEST(tracked, an_address_that_was_freed_past_the_adaptor_counts_once) {
  const auto pool = std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt);
  tracking_resource_adaptor adaptor(pool);
  void* const first = adaptor.allocate({}, 300);
  pool->deallocate({}, first, 300);
  void* const second = adaptor.allocate({}, 280);
  ASSERT_EQ(second, first);
  EXPECT_EQ(adaptor.allocated_bytes(), 280u);
  adaptor.deallocate({}, second, 280);
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
}

TEST(tracked, allocations_of_many_threads_are_all_known) {
  tracking_resource_adaptor adaptor(std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt), true);
  std::vector<std::vector<void*>> held(4);
  std::vector<std::thread> threads;
  for (auto& blocks : held) {
    threads.emplace_back([&adaptor, &blocks] {
      for (int i = 0; i < 100; ++i) {
        blocks.push_back(adaptor.allocate({}, 256));
        if (i % 2 != 0) {
          adaptor.deallocate({}, blocks.back(), 256);
          blocks.pop_back();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(adaptor.outstanding_allocations().size(), 200u);
  EXPECT_EQ(adaptor.allocated_bytes(), 200u * 256);
  EXPECT_TRUE(holds(adaptor.leak_report(), "200 allocations")) << adaptor.leak_report();
  for (const auto& blocks : held) {
    for (void* const block : blocks) adaptor.deallocate({}, block, 256);
  }
}

}  // namespace
}  // namespace cenote::test
