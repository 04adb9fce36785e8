// cenote.h, called as a plugin in C would.
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>

#include "cenote/cenote_or_throw.hpp"
#include "support/clients.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class c_abi : public clients {
 protected:
  /// The call has failed with that status, and the text has that in it.
  static void expect_failure(cenote_status status, const char* text) {
    EXPECT_EQ(cenote_last_status(), status) << cenote_last_error();
    EXPECT_NE(std::strstr(cenote_last_error(), text), nullptr) << cenote_last_error();
  }

  static std::string resource_of(int device) {
    char text[256] = {};
    EXPECT_GE(cenote_get_device_resource(device, text, sizeof(text)), 0) << cenote_last_error();
    return text;
  }

  static cenote_memory_state state_of(int device) {
    cenote_memory_state state{};
    state.struct_size = sizeof(state);
    EXPECT_EQ(cenote_get_memory_state(device, &state), CENOTE_OK) << cenote_last_error();
    return state;
  }
};

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

TEST_F(c_abi, spells_the_resource_that_is_current_whoever_set_it) {
  EXPECT_EQ(resource_of(0), "cuda");
  use_pool(1 * MiB);
  EXPECT_EQ(resource_of(0), "pool:initial=1MiB,max=1MiB | cuda");
  EXPECT_EQ(cenote_set_device_resource(1, " statistics|pool:initial=0 "), 0);
  const std::string spelled = resource_of(1);
  EXPECT_EQ(spelled, "statistics | pool:initial=0 | virtual");
  EXPECT_EQ(cenote_set_device_resource(1, spelled.c_str()), 0) << "what was spelled can be set";
  EXPECT_EQ(cenote_reset_device_resource(1), 0);
  EXPECT_EQ(resource_of(1), "cuda");
}

TEST_F(c_abi, cuts_a_text_off_at_its_capacity_and_returns_the_whole_length) {
  char text[8] = {'#', '#', '#', '#', '#', '#', '#', '#'};
  EXPECT_EQ(cenote_get_device_resource(0, text, 3), 4);
  EXPECT_EQ(std::string(text, 8), std::string("cu\0#####", 8));
  EXPECT_EQ(cenote_get_device_resource(0, text, 1), 4);
  EXPECT_STREQ(text, "");
  EXPECT_EQ(cenote_get_device_resource(0, nullptr, 0), 4);
}

TEST_F(c_abi, fills_in_the_figures_that_somebody_in_the_stack_knows) {
  const cenote_memory_state plain = state_of(0);
  EXPECT_EQ(plain.struct_size, sizeof(cenote_memory_state));
  EXPECT_EQ(plain.in_use, CENOTE_UNKNOWN);
  EXPECT_EQ(plain.peak, CENOTE_UNKNOWN);
  EXPECT_EQ(plain.pool_allocations, CENOTE_UNKNOWN);
  EXPECT_EQ(plain.device_total, 8 * GiB);

  ASSERT_EQ(cenote_set_device_resource(0, "statistics | pool:initial=1MiB,max=4MiB | cuda"), 0);
  void* const first = cenote_allocate(client_, 0, 1000, nullptr);
  void* const second = cenote_allocate(client_, 0, 2000, nullptr);
  EXPECT_EQ(cenote_deallocate(second, nullptr), 0);
  const cenote_memory_state state = state_of(0);
  EXPECT_EQ(state.in_use, 1024u);
  EXPECT_EQ(state.held, 1 * MiB);
  EXPECT_EQ(state.limit, 4 * MiB);
  EXPECT_GT(state.largest_free, 1 * MiB - 4 * KiB);
  EXPECT_LT(state.largest_free, 1 * MiB);
  EXPECT_EQ(state.peak, 3000u);
  EXPECT_EQ(state.allocations, 1u);
  EXPECT_EQ(state.total_allocations, 2u);
  EXPECT_EQ(state.pool_allocations, 2u);
  EXPECT_EQ(state.pool_upstream_allocations, 1u);
  EXPECT_EQ(state.pool_upstream_frees, 0u);
  EXPECT_EQ(cenote_deallocate(first, nullptr), 0);
}

TEST_F(c_abi, fills_in_what_a_client_holds) {
  const int client = cenote_register_client("counted");
  void* const block = cenote_allocate(client, 0, 1000, nullptr);
  cenote_client_usage usage{};
  usage.struct_size = sizeof(usage);
  EXPECT_EQ(cenote_get_client_usage(client, &usage), 0);
  EXPECT_EQ(usage.bytes, 1000u);
  EXPECT_EQ(usage.allocations, 1u);
  EXPECT_EQ(cenote_deallocate(block, nullptr), 0);
  EXPECT_EQ(cenote_get_client_usage(client, &usage), 0);
  EXPECT_EQ(usage.bytes, 0u);
  EXPECT_EQ(usage.peak_bytes, 1000u);
  EXPECT_EQ(usage.total_allocations, 1u);
}

TEST_F(c_abi, writes_no_further_than_the_struct_of_the_caller) {
  struct {
    cenote_memory_state known;
    unsigned char later[16];  // of a header that is newer than the library
  } wide;
  std::memset(&wide, 0xAB, sizeof(wide));
  wide.known.struct_size = sizeof(wide);
  EXPECT_EQ(cenote_get_memory_state(0, &wide.known), 0);
  EXPECT_EQ(wide.known.struct_size, sizeof(cenote_memory_state)) << "what the library knows";
  for (const unsigned char byte : wide.later) EXPECT_EQ(byte, 0xAB);
}

TEST_F(c_abi, refuses_a_struct_that_is_too_small_and_leaves_it) {
  cenote_memory_state state{};
  for (const std::size_t size : {std::size_t{0}, sizeof(std::size_t), sizeof(state) - 1}) {
    state.struct_size = size;
    EXPECT_LT(cenote_get_memory_state(0, &state), 0);
    expect_failure(CENOTE_INVALID_ARGUMENT, "struct_size");
    EXPECT_EQ(state.struct_size, size);
    EXPECT_EQ(state.device_total, 0u);
  }
  cenote_client_usage usage{};
  EXPECT_LT(cenote_get_client_usage(client_, &usage), 0);
  expect_failure(CENOTE_INVALID_ARGUMENT, "struct_size");
}

TEST_F(c_abi, returns_null_or_a_negative_status_and_says_why) {
  EXPECT_EQ(cenote_set_device_resource(0, "pol"), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "'pol' is not a known resource");
  EXPECT_EQ(cenote_set_device_resource(7, "cuda"), CENOTE_OUT_OF_RANGE);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device 7");
  EXPECT_EQ(cenote_get_device_resource(7, nullptr, 0), CENOTE_OUT_OF_RANGE);
  EXPECT_EQ(cenote_reset_device_resource(-1), CENOTE_OUT_OF_RANGE);
  EXPECT_EQ(cenote_allocate(client_, 7, 256, nullptr), nullptr);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device 7");
  EXPECT_EQ(cenote_allocate_sync(client_, 7, 256), nullptr);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device 7");
  EXPECT_EQ(cenote_allocate(client_, 0, std::size_t{1} << 50, nullptr), nullptr);
  expect_failure(CENOTE_OUT_OF_MEMORY, "out_of_memory: 1.00 PiB");
  EXPECT_EQ(cenote_trim(-1), CENOTE_OUT_OF_RANGE);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device -1");
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(cenote_allocate(client_, 0, 256, nullptr), nullptr);
  expect_failure(CENOTE_CUDA_ERROR, "cuMemAlloc failed: CUDA_ERROR_UNKNOWN (999)");
  cenote_sim_fail("cuStreamSynchronize", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(cenote_allocate_sync(client_, 0, 256), nullptr);
  expect_failure(CENOTE_CUDA_ERROR, "cuStreamSynchronize failed");
  EXPECT_EQ(cenote_capture_begin(-1), CENOTE_OUT_OF_RANGE);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device -1");
  EXPECT_EQ(cenote_capture_end(9), CENOTE_OUT_OF_RANGE);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device 9");
}

TEST_F(c_abi, refuses_a_client_that_it_did_not_number) {
  EXPECT_EQ(cenote_allocate(-1, 0, 256, nullptr), nullptr);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no client -1");
  cenote_client_usage usage{};
  usage.struct_size = sizeof(usage);
  EXPECT_EQ(cenote_get_client_usage(31, &usage), CENOTE_OUT_OF_RANGE);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no client 31");
}

TEST_F(c_abi, refuses_null_pointers) {
  EXPECT_EQ(cenote_register_client(nullptr), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "name must not be null");
  EXPECT_EQ(cenote_set_device_resource(0, nullptr), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "specification must not be null");
  EXPECT_EQ(cenote_get_device_resource(0, nullptr, 10), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "text must not be null");
  EXPECT_EQ(cenote_get_memory_state(0, nullptr), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "state must not be null");
  EXPECT_EQ(cenote_get_client_usage(client_, nullptr), CENOTE_INVALID_ARGUMENT);
  expect_failure(CENOTE_INVALID_ARGUMENT, "usage must not be null");
  EXPECT_EQ(cenote_deallocate(nullptr, nullptr), CENOTE_OK);
  EXPECT_EQ(cenote_deallocate_sync(nullptr), CENOTE_OK);
}

TEST_F(c_abi, says_which_frees_were_of_nothing_that_it_gave_out) {
  captured_stderr reported;
  int local = 0;
  EXPECT_EQ(cenote_deallocate(&local, nullptr), CENOTE_UNKNOWN_POINTER);
  expect_failure(CENOTE_UNKNOWN_POINTER, "not outstanding");
  void* const block = cenote_allocate(client_, 0, 256, nullptr);
  EXPECT_EQ(cenote_deallocate(block, nullptr), CENOTE_OK);
  EXPECT_EQ(cenote_deallocate_sync(block), CENOTE_UNKNOWN_POINTER);
}

TEST_F(c_abi, keeps_what_failed_for_the_thread_on_which_it_did) {
  EXPECT_LT(cenote_trim(-1), 0);
  std::thread([] {
    EXPECT_EQ(cenote_last_status(), CENOTE_OK);
    EXPECT_STREQ(cenote_last_error(), "");
    EXPECT_LT(cenote_set_device_resource(0, "pol"), 0);
  }).join();
  EXPECT_EQ(cenote_trim(0), 0);
  expect_failure(CENOTE_OUT_OF_RANGE, "there is no device -1");
}

TEST_F(c_abi, allocates_and_frees_without_a_stream) {
  ASSERT_EQ(cenote_set_device_resource(1, "pool:initial=1MiB | async"), 0);
  const call_count waits("cuStreamSynchronize");
  void* const block = cenote_allocate_sync(client_, 1, 1000);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(waits.value(), 1);
  EXPECT_EQ(state_of(1).in_use, 1024u);
  EXPECT_EQ(cenote_deallocate_sync(block), CENOTE_OK);
  EXPECT_EQ(waits.value(), 2);
  EXPECT_EQ(state_of(1).in_use, 0u);
  EXPECT_EQ(cenote_allocate_sync(client_, 1, 0), nullptr);
}

TEST_F(c_abi, follows_the_device_that_is_current_on_the_thread) {
  EXPECT_EQ(cenote_current_device(), 0);
  const device_scope scope(1);
  EXPECT_EQ(cenote_current_device(), 1);
}

TEST_F(c_abi, installs_a_resource_on_every_device) {
  EXPECT_EQ(cenote_install_resource("statistics | pool:initial=0"), 0);
  for (const int device : {0, 1}) {
    EXPECT_EQ(describe(*get_per_device_resource(device)), "statistics | pool:initial=0 | virtual");
  }
  EXPECT_EQ(cenote_install_resource("pol"), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(cenote_install_resource(nullptr), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(default_specification(), "statistics | pool:initial=0");
  set_default_specification("");
}

TEST_F(c_abi, shares_what_other_processes_can_map_and_says_why_where_they_cannot) {
  ASSERT_EQ(cenote_set_device_resource(0, "pool | virtual"), 0);
  void* const block = cenote_allocate(client_, 0, 1000, nullptr);
  char handle[256];
  const auto length = cenote_share(0, block, 1000, nullptr, handle, sizeof handle);
  ASSERT_GT(length, 0);
  EXPECT_EQ(static_cast<std::size_t>(length), std::strlen(handle));
  EXPECT_EQ(cenote_share(0, block, 1000, nullptr, nullptr, 0), length) << "the same handle";
  EXPECT_EQ(cenote_open_shared(handle, nullptr, nullptr, nullptr), nullptr);
  expect_failure(CENOTE_FAILURE, "this process's own");
  EXPECT_EQ(cenote_open_shared("handle", nullptr, nullptr, nullptr), nullptr);
  expect_failure(CENOTE_INVALID_ARGUMENT, "no handle");
  EXPECT_EQ(cenote_close_shared(block, nullptr), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(cenote_unshare(block), 0);
  EXPECT_EQ(cenote_unshare(block), CENOTE_INVALID_ARGUMENT);
  EXPECT_EQ(cenote_deallocate(block, nullptr), 0);
  ASSERT_EQ(cenote_set_device_resource(0, "cuda"), 0);
  void* const plain = cenote_allocate(client_, 0, 1000, nullptr);
  EXPECT_EQ(cenote_share(0, plain, 1000, nullptr, handle, sizeof handle), CENOTE_FAILURE);
  expect_failure(CENOTE_FAILURE, "pool | virtual");
  EXPECT_EQ(cenote_deallocate(plain, nullptr), 0);
  EXPECT_EQ(cenote_reset_device_resource(0), 0);
}

TEST_F(c_abi, gives_the_same_functions_as_one_struct) {
  const cenote_api* const api = cenote_get_api(CENOTE_ABI_VERSION);
  ASSERT_NE(api, nullptr);
  EXPECT_EQ(api->struct_size, sizeof(cenote_api));
  EXPECT_EQ(api->abi_version, cenote_abi_version());
#define EXPECT_SAME(name)                                                       \
  static_assert(std::is_same_v<decltype(api->name), decltype(&cenote_##name)>); \
  EXPECT_EQ(api->name, &cenote_##name)
  EXPECT_SAME(last_status);
  EXPECT_SAME(last_error);
  EXPECT_SAME(device_count);
  EXPECT_SAME(current_device);
  EXPECT_SAME(set_device_resource);
  EXPECT_SAME(get_device_resource);
  EXPECT_SAME(reset_device_resource);
  EXPECT_SAME(trim);
  EXPECT_SAME(get_memory_state);
  EXPECT_SAME(register_client);
  EXPECT_SAME(get_client_usage);
  EXPECT_SAME(allocate);
  EXPECT_SAME(allocate_or_throw);
  EXPECT_SAME(deallocate);
  EXPECT_SAME(allocate_sync);
  EXPECT_SAME(deallocate_sync);
  EXPECT_SAME(record_stream);
  EXPECT_SAME(capture_begin);
  EXPECT_SAME(capture_end);
  EXPECT_SAME(registry_address);
  EXPECT_SAME(allocate_holding_or_throw);
  EXPECT_SAME(deallocate_holding);
  EXPECT_SAME(install_resource);
  EXPECT_SAME(trim_to);
  EXPECT_SAME(share);
  EXPECT_SAME(unshare);
  EXPECT_SAME(open_shared);
  EXPECT_SAME(close_shared);
  EXPECT_SAME(make_page_set);
  EXPECT_SAME(map_page_set);
  EXPECT_SAME(unmap_page_set);
  EXPECT_SAME(trim_page_set);
  EXPECT_SAME(pool_bytes);
  EXPECT_SAME(begin_region);
  EXPECT_SAME(end_region);
  EXPECT_SAME(pause);
  EXPECT_SAME(resume);
  EXPECT_SAME(allocate_aligned);
  EXPECT_SAME(graph_pool_begin);
  EXPECT_SAME(graph_pool_end);
  EXPECT_SAME(graph_pool_release);
  EXPECT_SAME(graph_pool_begin_if);
#undef EXPECT_SAME
  constexpr std::size_t members = 42;
  EXPECT_EQ(sizeof(cenote_api), 2 * sizeof(std::size_t) + members * sizeof(void*)) << "a member has no line above";
}

TEST_F(c_abi, tells_what_a_pool_holds_without_asking_the_driver) {
  EXPECT_LT(cenote_pool_bytes(0), 0);
  ASSERT_EQ(cenote_set_device_resource(0, "statistics | pool:initial=4MiB | cuda"), 0);
  const call_count asked("cuMemGetInfo_v2");
  EXPECT_EQ(cenote_pool_bytes(0), 4 << 20);
  EXPECT_EQ(asked.value(), 0);
  EXPECT_LT(cenote_pool_bytes(7), 0);
}

TEST_F(c_abi, shows_one_set_of_pages_at_several_addresses) {
  cenote_page_set* const set = cenote_make_page_set(0);
  ASSERT_NE(set, nullptr);
  void* const first = cenote_map_page_set(set, 0, 2 * CENOTE_PAGE_SET_BYTES);
  void* const second = cenote_map_page_set(set, 0, CENOTE_PAGE_SET_BYTES);
  EXPECT_NE(first, second);
  EXPECT_EQ(cenote_trim_page_set(set, 0), 2 * CENOTE_PAGE_SET_BYTES);
  EXPECT_EQ(cenote_map_page_set(set, 1, 1), nullptr);
  expect_failure(CENOTE_INVALID_ARGUMENT, "whole pages");
  EXPECT_EQ(cenote_map_page_set(set, 0, std::size_t{1} << 50), nullptr);
  expect_failure(CENOTE_OUT_OF_MEMORY, "");
  for (void* const range : {first, second}) EXPECT_EQ(cenote_unmap_page_set(set, range), CENOTE_OK);
  EXPECT_EQ(cenote_unmap_page_set(set, first), CENOTE_UNKNOWN_POINTER);
  EXPECT_EQ(cenote_trim_page_set(set, 1), 0);
  EXPECT_EQ(cenote_make_page_set(7), nullptr);
  EXPECT_EQ(cenote_map_page_set(nullptr, 0, CENOTE_PAGE_SET_BYTES), nullptr);
  expect_failure(CENOTE_INVALID_ARGUMENT, "set must not be null");
}

TEST_F(c_abi, has_no_struct_of_a_version_that_it_does_not_know) {
  EXPECT_EQ(cenote_get_api(0), nullptr);
  EXPECT_EQ(cenote_get_api(CENOTE_ABI_VERSION + 1), nullptr);
  expect_failure(CENOTE_INVALID_ARGUMENT, "version");
}

TEST_F(c_abi, throws_from_the_functions_that_say_so) {
  EXPECT_THROW(cenote_allocate_or_throw(client_, 0, std::size_t{1} << 50, nullptr), out_of_memory);
  EXPECT_THROW(cenote_allocate_or_throw(client_, 7, 256, nullptr), std::out_of_range);
  const auto release = []() -> void* { return nullptr; };
  const auto acquire = [](void*) {};
  EXPECT_THROW(cenote_allocate_holding_or_throw(client_, 7, 256, nullptr, release, acquire), std::out_of_range);
  void* const block = cenote_allocate_or_throw(client_, 0, 256, nullptr);
  cenote_deallocate(block, nullptr);
}

TEST_F(c_abi, trims_the_current_resource) {
  use_pool(8 * MiB);
  EXPECT_EQ(cenote_trim(0), static_cast<int64_t>(8 * MiB));
  EXPECT_EQ(cenote_trim(1), 0);
}

TEST_F(c_abi, trims_to_what_is_to_be_kept_and_waits_if_it_is_told_to) {
  use_pool(8 * MiB);
  EXPECT_EQ(cenote_trim_to(0, 8 * MiB, 0), 0);
  void* const block = cenote_allocate(client_, 0, 4 * MiB, nullptr);
  for (int i = 0; i < 100; ++i) fill_async(block, 1, 4 * MiB, {}, 0);  // each question moves a queue on by one piece
  cenote_deallocate(block, nullptr);
  EXPECT_EQ(cenote_trim_to(0, 0, 0), 0) << "the work is pending";
  EXPECT_EQ(cenote_trim_to(0, 0, 1), static_cast<int64_t>(8 * MiB));
  EXPECT_LT(cenote_trim_to(-1, 0, 1), 0);
}

TEST_F(c_abi, holds_frees_back_between_the_begin_and_the_end_of_a_capture) {
  const auto pool = use_pool(1 * MiB);
  void* const block = cenote_allocate(client_, 0, 256, nullptr);
  client_share(block);
  EXPECT_EQ(cenote_capture_begin(0), CENOTE_OK);
  cenote_deallocate(block, nullptr);
  EXPECT_EQ(pool->state().in_use, 256u);
  EXPECT_EQ(cenote_capture_end(0), CENOTE_OK);
  EXPECT_EQ(pool->state().in_use, 0u);
  EXPECT_EQ(cenote_capture_end(0), CENOTE_OK) << "of one that began before anybody told";
}

TEST_F(c_abi, allocates_at_any_alignment_and_frees_by_it) {
  for (const char* const specification : {"pool:initial=8MiB | cuda", "cuda", "statistics | pool | virtual"}) {
    ASSERT_EQ(cenote_set_device_resource(0, specification), 0);
    for (const std::size_t alignment : {1ul, 256ul, 4096ul, 4ul << 20}) {
      void* const block = cenote_allocate_aligned(client_, 0, 1000, alignment, nullptr);
      ASSERT_NE(block, nullptr) << cenote_last_error();
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0u) << specification;
      void* const shared = cenote_allocate_aligned(client_, 0, 1000, alignment, nullptr);
      client_share(shared);
      EXPECT_EQ(cenote_deallocate(block, nullptr), CENOTE_OK);
      EXPECT_EQ(cenote_deallocate(shared, nullptr), CENOTE_OK);
    }
    EXPECT_GE(cenote_trim_to(0, 0, 1), 0);
  }
  for (const std::size_t alignment : {0ul, 3ul, 257ul}) {
    EXPECT_EQ(cenote_allocate_aligned(client_, 0, 1000, alignment, nullptr), nullptr);
    expect_failure(CENOTE_INVALID_ARGUMENT, "alignment");
  }
  EXPECT_EQ(cenote_allocate_aligned(client_, 0, 1000, std::size_t{1} << 50, nullptr), nullptr);
  expect_failure(CENOTE_OUT_OF_MEMORY, "at a multiple of 1.00 PiB");
}

}  // namespace
}  // namespace cenote::test
