// cenote.h, called as a plugin in C would.
#include <cstring>

#include "cenote/cenote.h"
#include "clients.hpp"
#include "simulated.hpp"

namespace cenote::test {
namespace {

class c_abi : public clients {};

TEST_F(c_abi, tells_its_version_and_its_one_table) {
  EXPECT_EQ(cenote_abi_version(), CENOTE_ABI_VERSION);
  EXPECT_EQ(cenote_registry_address(), registry_address());
  EXPECT_EQ(cenote_device_count(), 2);
}

TEST_F(c_abi, allocates_from_the_current_resource_of_the_device) {
  const int client = cenote_register_client("c");
  ASSERT_GE(client, 0);
  EXPECT_EQ(cenote_register_client("c"), client);
  const auto pool = use_pool(1 * MiB);
  void* const block = cenote_allocate(client, 0, 1000, nullptr);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(pool->state().in_use, 1024u);
  EXPECT_EQ(usage_of("c").bytes, 1000u);
  EXPECT_EQ(cenote_record_stream(block, nullptr), 0);
  cenote_deallocate(block, nullptr);
  EXPECT_EQ(pool->state().in_use, 0u);
  EXPECT_EQ(cenote_allocate(client, 0, 0, nullptr), nullptr);
}

TEST_F(c_abi, sets_a_resource_by_its_specification) {
  EXPECT_EQ(cenote_set_device_resource(1, "statistics | pool:initial=1MiB | cuda"), 0);
  EXPECT_EQ(describe(*get_per_device_resource(1)), "statistics | pool:initial=1MiB | cuda");
}

TEST_F(c_abi, returns_null_or_a_negative_number_and_says_why) {
  const auto last_error_has = [](const char* text) { return std::strstr(cenote_last_error(), text) != nullptr; };
  EXPECT_EQ(cenote_set_device_resource(0, "pol"), -1);
  EXPECT_TRUE(last_error_has("'pol' is not a known resource")) << cenote_last_error();
  EXPECT_EQ(cenote_set_device_resource(7, "cuda"), -1);
  EXPECT_TRUE(last_error_has("there is no device 7")) << cenote_last_error();
  EXPECT_EQ(cenote_allocate(client_, 7, 256, nullptr), nullptr);
  EXPECT_TRUE(last_error_has("there is no device 7")) << cenote_last_error();
  EXPECT_EQ(cenote_allocate(client_, 0, std::size_t{1} << 50, nullptr), nullptr);
  EXPECT_TRUE(last_error_has("out_of_memory: 1.00 PiB")) << cenote_last_error();
  EXPECT_EQ(cenote_trim(-1), -1);
  EXPECT_TRUE(last_error_has("there is no device -1")) << cenote_last_error();
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(cenote_allocate(client_, 0, 256, nullptr), nullptr);
  EXPECT_TRUE(last_error_has("cuMemAlloc failed: CUDA_ERROR_UNKNOWN (999)")) << cenote_last_error();
}

TEST_F(c_abi, refuses_a_client_that_it_did_not_number) {
  EXPECT_EQ(cenote_allocate(-1, 0, 256, nullptr), nullptr);
  EXPECT_NE(std::strstr(cenote_last_error(), "client"), nullptr) << cenote_last_error();
}

TEST_F(c_abi, refuses_null_texts) {
  EXPECT_EQ(cenote_register_client(nullptr), -1);
  EXPECT_EQ(cenote_set_device_resource(0, nullptr), -1);
}

TEST_F(c_abi, throws_from_the_one_function_that_says_so) {
  EXPECT_THROW(cenote_allocate_or_throw(client_, 0, std::size_t{1} << 50, nullptr), out_of_memory);
  EXPECT_THROW(cenote_allocate_or_throw(client_, 7, 256, nullptr), std::out_of_range);
  void* const block = cenote_allocate_or_throw(client_, 0, 256, nullptr);
  cenote_deallocate(block, nullptr);
}

TEST_F(c_abi, trims_the_current_resource) {
  use_pool(8 * MiB);
  EXPECT_EQ(cenote_trim(0), static_cast<int64_t>(8 * MiB));
  EXPECT_EQ(cenote_trim(1), 0);
}

TEST_F(c_abi, holds_frees_back_between_the_begin_and_the_end_of_a_capture) {
  const auto pool = use_pool(1 * MiB);
  void* const block = cenote_allocate(client_, 0, 256, nullptr);
  client_share(block);
  cenote_capture_begin(0);
  cenote_deallocate(block, nullptr);
  EXPECT_EQ(pool->state().in_use, 256u);
  cenote_capture_end(0);
  EXPECT_EQ(pool->state().in_use, 0u);
  cenote_capture_end(0);
  cenote_capture_begin(-1);
  cenote_capture_end(-1);
}

}  // namespace
}  // namespace cenote::test
