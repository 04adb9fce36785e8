// The stacks that the tracking adaptor captures: they begin with the frame of the program that called libcenote.so.
#include <functional>

#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {

/// A call site of the program's own; the linker gives its name to the report because it is not of a namespace without
/// one.
[[gnu::noinline]] void* allocate_here(memory_resource& resource, std::size_t bytes) {
  void* const pointer = resource.allocate({}, bytes);
  asm volatile("" ::: "memory");  // no tail call: the frame must stay
  return pointer;
}

namespace {

std::shared_ptr<memory_resource> cuda() { return std::make_shared<cuda_memory_resource>(0); }

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

class call_stacks : public simulated_device, public testing::WithParamInterface<bool> {
 protected:
  static std::shared_ptr<memory_resource> source() {
    if (GetParam()) return std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt);
    return cuda();
  }
};

INSTANTIATE_TEST_SUITE_P(over, call_stacks, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "pool" : "cuda"; });

TEST_P(call_stacks, group_a_leak_by_call_site_the_most_bytes_first) {
  tracking_resource_adaptor adaptor(source(), true);
  std::vector<void*> blocks;
  void* const lone = adaptor.allocate({}, 5000);
  for (int i = 0; i < 3; ++i) blocks.push_back(allocate_here(adaptor, 2000));
  const std::string report = adaptor.leak_report();
  EXPECT_TRUE(holds(report, "4 allocations, 10.74 KiB (11000 bytes)")) << report;
  const auto larger = report.find("3 allocations, 5.86 KiB (6000 bytes) from");
  const auto smaller = report.find("1 allocation, 4.88 KiB (5000 bytes) from");
  ASSERT_NE(larger, std::string::npos) << report;
  ASSERT_NE(smaller, std::string::npos) << report;
  EXPECT_LT(larger, smaller);
  EXPECT_EQ(count(report, " from\n"), 2u);
  EXPECT_TRUE(holds(report, "conformance_simulated+0x")) << report;
  EXPECT_FALSE(holds(report, "cenote::tracking_resource_adaptor")) << "the adaptor's own frames: " << report;
  for (void* const block : blocks) adaptor.deallocate({}, block, 2000);
  adaptor.deallocate({}, lone, 5000);
}

TEST_P(call_stacks, let_an_interpreter_describe_its_frames_in_place_of_its_machine_code) {
  int calls = 0;
  const interpreter here{"Here", [&] { return ++calls, std::string("outer\ninner\n"); },
                         reinterpret_cast<const void*>(&allocate_here)};
  tracking_resource_adaptor adaptor(source(), true, here);
  void* const block = allocate_here(adaptor, 100);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(holds(adaptor.leak_report(), "  Here, innermost last:\n    outer\n    inner\n")) << adaptor.leak_report();
  EXPECT_FALSE(holds(adaptor.leak_report(), "conformance_simulated")) << adaptor.leak_report();
  adaptor.deallocate({}, block, 100);
}

TEST(call_stack_of_the_allocation, is_in_the_report_of_a_free_of_a_wrong_size) {
  const auto upstream = std::make_shared<program_resource>(cuda());
  tracking_resource_adaptor adaptor(upstream, true);
  void* const block = allocate_here(adaptor, 100);
  captured_stderr reported;
  adaptor.deallocate({}, block, 77);
  const std::string text = reported.text();
  EXPECT_TRUE(holds(text, "was allocated with 100 bytes and freed with 77")) << text;
  EXPECT_TRUE(holds(text, "conformance_simulated+0x")) << text;
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
  EXPECT_EQ(upstream->last_bytes, 100u);
}

}  // namespace
}  // namespace cenote::test
