// Reservations, pages and mappings: what they hold, what they give back, and that no failure of the driver leaks.
#include <array>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/mapping_table.hpp"
#include "cenote/driver/page_mapping.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/reports.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t page_bytes = 2 * MiB;
constexpr std::size_t place_count = 4;

class virtual_memory : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    clear_reports();
  }

  void TearDown() override {
    EXPECT_EQ(report_count(), 0U);
    simulated_device::TearDown();
  }

  static std::shared_ptr<const physical_page> make_page(std::size_t bytes = page_bytes) {
    return physical_page::create({.device = 0}, bytes);
  }

  static std::shared_ptr<const address_reservation> reserve() {
    return address_reservation::reserve(0, place_count * page_bytes);
  }

  static unsigned char byte_at(const std::byte* address, stream_ref stream = {}) { return read(address, 1, stream)[0]; }

  /// What happened, as the one report of it; none is left.
  static void expect_report(const std::string& beginning) {
    const auto reports = kept_reports();
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_EQ(reports[0].rfind(beginning, 0), 0U) << reports[0];
    clear_reports();
  }
};

TEST_F(virtual_memory, is_there_in_steps_of_two_mebibytes) {
  EXPECT_TRUE(has_virtual_memory(0));
  EXPECT_EQ(virtual_memory_granularity(1), page_bytes);
  EXPECT_THROW(virtual_memory_granularity(2), std::out_of_range);
}

TEST(no_virtual_memory, is_said_of_a_device_without_it_and_asking_is_an_error) {
  setenv("CENOTE_SIM", "memory=1GiB,virtual_memory=0", 1);
  EXPECT_FALSE(has_virtual_memory(0));
  EXPECT_THROW(virtual_memory_granularity(0), cuda_error);
  EXPECT_THROW(address_reservation::reserve(0, page_bytes), cuda_error);
  EXPECT_THROW(physical_page::create({.device = 0}, page_bytes), cuda_error);
}

TEST_F(virtual_memory, page_is_one_memory_at_all_its_addresses) {
  const auto addresses = reserve();
  const auto page = make_page();
  const auto first = page_mapping::map(page, addresses, addresses->base());
  const auto second = page_mapping::map(page, addresses, addresses->base() + page_bytes);
  fill_async(first.address(), 7, page_bytes, {}, 0);
  EXPECT_EQ(byte_at(second.address() + page_bytes - 1), 7);
}

TEST_F(virtual_memory, page_keeps_its_bytes_when_it_moves) {
  const auto addresses = reserve();
  auto mapping = page_mapping::map(make_page(), addresses, addresses->base());
  fill_async(mapping.address(), 7, 1, {}, 0);
  synchronize(stream_ref{}, 0);
  mapping = page_mapping::map(mapping.page(), addresses, addresses->base() + page_bytes);
  EXPECT_EQ(live_objects().mappings, 1U);
  EXPECT_EQ(byte_at(mapping.address()), 7);
}

TEST(mapping_table, is_open_to_a_device_that_is_first_used_while_a_page_is_mapped) {
  setenv("CENOTE_SIM", "devices=3,memory=1GiB", 1);
  synchronize_device(0);
  synchronize_device(1);
  const auto is_open_to = [](std::byte* address, int device) {
    unsigned long long flags = 0;
    const CUmemLocation where = location_of(device);
    EXPECT_EQ(cuMemGetAccess(&flags, &where, reinterpret_cast<CUdeviceptr>(address)), CUDA_SUCCESS);
    return flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  };
  const auto addresses = address_reservation::reserve(0, 2 * page_bytes);
  std::byte* const first = addresses->base();
  std::byte* const second = first + page_bytes;
  mapping_table table(0, {});
  ASSERT_TRUE(table.map(physical_page::create({.device = 0}, page_bytes), addresses, first, {}));
  EXPECT_TRUE(is_open_to(first, 1));
  EXPECT_FALSE(is_open_to(first, 2));
  {
    const before_call during("cuMemMap", [] { synchronize_device(2); });
    ASSERT_TRUE(table.map(physical_page::create({.device = 0}, page_bytes), addresses, second, {}));
  }
  for (std::byte* const page : {first, second}) EXPECT_TRUE(is_open_to(page, 1) && is_open_to(page, 2));
}

TEST(mapping_table, goes_on_without_a_device_that_the_driver_refuses) {
  setenv("CENOTE_SIM", "devices=2,memory=1GiB", 1);
  clear_reports();
  synchronize_device(0);
  synchronize_device(1);
  const auto addresses = address_reservation::reserve(0, page_bytes);
  mapping_table follows(0, {});
  cenote_sim_fail("cuMemSetAccess", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_TRUE(follows.map(physical_page::create({.device = 0}, page_bytes), addresses, addresses->base(), {}));
  EXPECT_EQ(report_count(), 1U);
  follows.take(addresses->base()).unmap();
  mapping_table named(0, {peer_devices::choice::named, {1}});
  cenote_sim_fail("cuMemSetAccess", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(named.map(physical_page::create({.device = 0}, page_bytes), addresses, addresses->base(), {}),
               cuda_error);
  EXPECT_EQ(named.page_at(addresses->base()), nullptr);
}

TEST_F(virtual_memory, mapping_keeps_its_page_and_its_addresses) {
  page_mapping mapping;
  EXPECT_FALSE(mapping);
  {
    const auto addresses = reserve();
    mapping = page_mapping::map(make_page(), addresses, addresses->base());
  }
  ASSERT_TRUE(mapping);
  EXPECT_EQ(live_objects().reservations, 1U);
  EXPECT_EQ(live_objects().handles, 1U);
  fill_async(mapping.address(), 7, page_bytes, {}, 0);
  EXPECT_EQ(byte_at(mapping.address()), 7);
}

TEST_F(virtual_memory, mapping_that_was_moved_from_is_empty) {
  const auto addresses = reserve();
  auto from = page_mapping::map(make_page(), addresses, addresses->base());
  const page_mapping to(std::move(from));
  EXPECT_FALSE(from);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(from.address(), nullptr);
  EXPECT_EQ(to.address(), addresses->base());
  EXPECT_EQ(live_objects().mappings, 1U);
}

TEST_F(virtual_memory, copies_of_another_device_reach_what_is_open_to_it) {
  const auto addresses = reserve();
  const std::array peers{0, 1};
  const auto open = page_mapping::map(make_page(), addresses, addresses->base(), peers);
  const auto later = page_mapping::map(make_page(), addresses, addresses->base() + page_bytes);
  later.open_to(1);
  for (const page_mapping* mapping : {&open, &later}) {
    fill_async(mapping->address(), 7, 1, {}, 1);
    EXPECT_EQ(read(mapping->address(), 1, {}, 1)[0], 7);
    fill_async(mapping->address(), 8, 1, {}, 0);
    EXPECT_EQ(byte_at(mapping->address()), 8) << "its own device";
  }
  const auto closed = page_mapping::map(make_page(), addresses, addresses->base() + 2 * page_bytes);
  EXPECT_THROW(fill_async(closed.address(), 7, 1, {}, 1), cuda_error);
}

TEST_F(virtual_memory, page_can_be_for_other_processes_and_for_a_network_card) {
  const page_properties wanted{.device = 1, .handles = {.posix_file_descriptor = true}, .for_rdma = true};
  const auto page = physical_page::create(wanted, page_bytes);
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(page->device(), 1);
  EXPECT_THROW(physical_page::create({.handles = {.fabric = true}}, page_bytes), cuda_error);
}

TEST_F(virtual_memory, neither_mapping_nor_unmapping_waits) {
  const cuda_stream busy(0, cuda_stream::kind::non_blocking);
  const auto addresses = reserve();
  auto used = page_mapping::map(make_page(), addresses, addresses->base());
  fill_async(used.address(), 1, 1, busy.view(), 0);
  page_mapping::map(make_page(), addresses, addresses->base() + page_bytes).unmap();
  EXPECT_GT(cenote_sim_pending(), 0U);
  synchronize(busy.view(), 0);
}

TEST_F(virtual_memory, all_of_it_is_legal_in_a_capture) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  ASSERT_EQ(cuStreamBeginCapture(stream.view().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  const auto addresses = reserve();
  page_mapping::map(make_page(), addresses, addresses->base(), {}, stream.view()).unmap();
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream.view().value(), &graph), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
}

TEST_F(virtual_memory, page_is_null_where_the_device_is_full_and_others_are_there_afterwards) {
  const std::size_t most = align_down(device_memory_info(0).free_bytes, page_bytes);
  auto page = make_page(most);
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(make_page(), nullptr);
  page = nullptr;
  EXPECT_NE(make_page(most), nullptr);
}

TEST_F(virtual_memory, page_gets_what_lies_unused_in_a_pool_of_the_driver) {
  const std::size_t most = align_down(device_memory_info(0).free_bytes * 3 / 4, page_bytes);
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  cuda_async_memory_resource pool;
  pool.deallocate(stream.view(), pool.allocate(stream.view(), most), most);
  EXPECT_NE(make_page(most), nullptr);
}

TEST_F(virtual_memory, wrong_sizes_and_places_are_errors_and_leave_nothing) {
  EXPECT_THROW(make_page(page_bytes / 2), cuda_error);
  EXPECT_THROW(physical_page::create({.device = 2}, page_bytes), std::out_of_range);
  EXPECT_THROW(address_reservation::reserve(0, 1), cuda_error);
  EXPECT_EQ(address_reservation::reserve(0, std::size_t{1} << 60), nullptr);
  const auto addresses = reserve();
  const auto mapping = page_mapping::map(make_page(), addresses, addresses->base());
  EXPECT_THROW(page_mapping::map(make_page(), addresses, addresses->base()), cuda_error) << "where another one is";
  EXPECT_THROW(page_mapping::map(make_page(), addresses, addresses->base() + addresses->bytes()), cuda_error);
  EXPECT_THROW(mapping.open_to(7), cuda_error);
  EXPECT_EQ(live_objects().mappings, 1U);
  EXPECT_EQ(live_objects().handles, 1U);
}

/// Reserves, makes a page, moves it, opens it to a neighbour and ends. False where memory ran out on the way.
bool move_a_page() {
  const auto addresses = address_reservation::reserve(0, place_count * page_bytes);
  if (addresses == nullptr) return false;
  auto page = physical_page::create({.device = 0, .for_rdma = true}, page_bytes);
  if (page == nullptr) return false;
  auto from = page_mapping::map(page, addresses, addresses->base());
  if (!from) return false;
  auto to = page_mapping::map(std::move(page), addresses, addresses->base() + page_bytes);
  if (!to) return false;
  to.open_to(1);
  from.unmap();
  to.unmap();
  return true;
}

/// What a call may fail with: memory, or anything else.
class virtual_memory_failing : public virtual_memory, public testing::WithParamInterface<CUresult> {
 protected:
  /// Lets the nth call of `name` fail; whether it was made at all.
  bool fails_at(const char* name, int nth) {
    const auto before = live_objects();
    const call_count calls(name);
    EXPECT_EQ(simulator()->fail(name, nth, GetParam()), 0);
    bool done = false;
    try {
      done = move_a_page();
    } catch (const cuda_error& error) {
      EXPECT_EQ(error.code(), GetParam()) << error.what();
    }
    simulator()->fail(name, 0, 0);
    const bool failed = calls.value() >= nth;
    EXPECT_TRUE(done || failed);
    EXPECT_EQ(count_objects(live_objects()), count_objects(before)) << name << ", call " << nth;
    EXPECT_EQ(live_objects().device_bytes, before.device_bytes) << name << ", call " << nth;
    return failed;
  }
};

TEST_P(virtual_memory_failing, leaks_nothing_and_works_when_tried_again) {
  const std::array names{"cuMemAddressReserve",  "cuMemCreate",     "cuMemMap",    "cuMemSetAccess",    "cuMemUnmap",
                         "cuDeviceGetAttribute", "cuCtxGetCurrent", "cuDeviceGet", "cuDriverGetVersion"};
  for (const char* name : names) {
    int nth = 1;
    while (fails_at(name, nth)) ++nth;
    EXPECT_GT(nth, 1) << name << " is never called";
    EXPECT_TRUE(move_a_page());
  }
}

INSTANTIATE_TEST_SUITE_P(with, virtual_memory_failing,
                         testing::Values(CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_ILLEGAL_ADDRESS), [](const auto& tested) {
                           return tested.param == CUDA_ERROR_OUT_OF_MEMORY ? "no_memory" : "error";
                         });

TEST_F(virtual_memory, call_for_memory_is_made_again_where_there_is_room_to_be_made) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  cuda_async_memory_resource pool;
  for (const char* name : {"cuMemCreate", "cuMemMap", "cuMemSetAccess"}) {
    pool.deallocate(stream.view(), pool.allocate(stream.view(), 64 * MiB), 64 * MiB);
    simulator()->fail(name, 1, CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_TRUE(move_a_page()) << name;
  }
}

TEST_F(virtual_memory, unmapping_that_failed_may_be_tried_again) {
  const auto addresses = reserve();
  auto mapping = page_mapping::map(make_page(), addresses, addresses->base());
  simulator()->fail("cuMemUnmap", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(mapping.unmap(), cuda_error);
  ASSERT_TRUE(mapping);
  mapping.unmap();
  EXPECT_FALSE(mapping);
  EXPECT_EQ(live_objects().mappings, 0U);
}

TEST_F(virtual_memory, destructors_try_twice_to_give_back) {
  auto addresses = reserve();
  auto page = make_page();
  simulator()->fail("cuMemUnmap", 1, CUDA_ERROR_UNKNOWN);
  {
    const auto mapping = page_mapping::map(page, addresses, addresses->base());
  }
  EXPECT_EQ(live_objects().mappings, 0U);
  simulator()->fail("cuMemRelease", 1, CUDA_ERROR_UNKNOWN);
  page = nullptr;
  EXPECT_EQ(live_objects().handles, 0U);
  simulator()->fail("cuMemAddressFree", 1, CUDA_ERROR_UNKNOWN);
  addresses = nullptr;
  EXPECT_EQ(live_objects().reservations, 0U);
}

}  // namespace
}  // namespace cenote::test
