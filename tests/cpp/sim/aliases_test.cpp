// One physical piece at two addresses: work on either must be ordered with work on the other, and a mapping must not
// end under work.
#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimAliases : public Sim {
 protected:
  void SetUp() override {
    Sim::SetUp();
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    ASSERT_OK(cuMemAddressReserve(&one, 2 * step, 0, 0, 0));
    ASSERT_OK(cuMemCreate(&handle, step, &properties, 0));
    map(one);
    map(two = one + step);
    elsewhere = make_memory(step);
    first = make_stream();
    second = make_stream();
  }

  void map(CUdeviceptr at) const {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    ASSERT_OK(cuMemMap(at, step, 0, handle, 0));
    ASSERT_OK(cuMemSetAccess(at, step, &access, 1));
  }

  void TearDown() override {
    EXPECT_OK(cuCtxSynchronize());
    EXPECT_OK(cuMemUnmap(one, 2 * step));
    EXPECT_OK(cuMemRelease(handle));
    EXPECT_OK(cuMemAddressFree(one, 2 * step));
    Sim::TearDown();
  }

  static void write(CUdeviceptr at, CUstream stream, std::size_t bytes = KiB) {
    EXPECT_OK(cuMemsetD8Async(at, 1, bytes, stream));
  }
  void read(CUdeviceptr at, CUstream stream, std::size_t bytes = KiB) const {
    EXPECT_OK(cuMemcpyAsync(elsewhere, at, bytes, stream));
  }

  static void order(CUstream later, CUstream earlier) { EXPECT_OK(cuStreamWaitEvent(later, record_on(earlier), 0)); }

  static void expect_race() { expect_violation("is not ordered after work of"); }

  CUdeviceptr one = 0;
  CUdeviceptr two = 0;
  CUdeviceptr elsewhere = 0;
  CUmemGenericAllocationHandle handle = 0;
  CUstream first = nullptr;
  CUstream second = nullptr;
};

TEST_F(SimAliases, writing_through_two_addresses_without_order_is_written_down) {
  write(one, first);
  write(two, second);
  expect_race();
}

TEST_F(SimAliases, reading_what_is_being_written_is_written_down_and_so_is_writing_what_is_being_read) {
  write(one, first);
  read(two, second);
  expect_race();
  EXPECT_OK(cuCtxSynchronize());
  read(one, first);
  write(two, second);
  expect_race();
}

TEST_F(SimAliases, reading_through_both_at_once_is_right) {
  read(one, first);
  read(two, second);
}

TEST_F(SimAliases, other_bytes_of_the_piece_are_other_memory) {
  write(one, first);
  write(two + KiB, second);
}

TEST_F(SimAliases, one_stream_is_in_order_by_itself) {
  write(one, first);
  read(two, first);
  write(two, first);
}

TEST_F(SimAliases, an_event_orders) {
  write(one, first);
  order(second, first);
  read(two, second);
  write(two, second);
}

TEST_F(SimAliases, an_event_that_was_recorded_before_the_work_orders_nothing) {
  const CUevent early = record_on(first);
  write(one, first);
  EXPECT_OK(cuStreamWaitEvent(second, early, 0));
  write(two, second);
  expect_race();
}

TEST_F(SimAliases, a_wait_that_comes_after_the_work_orders_nothing) {
  write(one, first);
  write(two, second);
  order(second, first);
  expect_race();
}

TEST_F(SimAliases, waiting_on_the_host_orders) {
  write(one, first);
  EXPECT_OK(cuStreamSynchronize(first));
  write(two, second);
}

TEST_F(SimAliases, waiting_for_the_other_stream_alone_orders_nothing) {
  write(one, first);
  EXPECT_OK(cuStreamSynchronize(second));
  write(two, second);
  expect_race();
}

TEST_F(SimAliases, order_goes_through_other_streams) {
  const CUstream between = make_stream();
  write(one, first);
  order(between, first);
  write(elsewhere, between);
  order(second, between);
  write(two, second);
}

TEST_F(SimAliases, the_legacy_stream_is_ordered_with_blocking_ones) {
  const CUstream blocking = make_stream(CU_STREAM_DEFAULT);
  const CUstream another = make_stream(CU_STREAM_DEFAULT);
  write(one, blocking);
  write(elsewhere, nullptr);
  write(two, another);
  EXPECT_OK(cuCtxSynchronize());
  write(one, blocking);
  write(two, another);
  expect_race();
}

TEST_F(SimAliases, an_event_over_the_context_orders) {
  write(one, first);
  const CUevent all = make_event();
  EXPECT_OK(cuCtxRecordEvent(contexts[0], all));
  EXPECT_OK(cuStreamWaitEvent(second, all, 0));
  write(two, second);
}

TEST_F(SimAliases, work_of_a_stream_that_was_destroyed_still_counts) {
  write(one, first);
  EXPECT_OK(cuStreamDestroy(first));
  first = make_stream();
  write(two, second);
  expect_race();
}

TEST_F(SimAliases, what_was_read_by_several_streams_waits_for_all_of_them) {
  const CUstream third = make_stream();
  read(one, first);
  read(two, second);
  order(third, first);
  write(one, third);
  expect_race();
  EXPECT_OK(cuCtxSynchronize());
  read(one, first);
  read(two, second);
  order(third, first);
  order(third, second);
  write(one, third);
}

TEST_F(SimAliases, a_large_access_is_checked_against_all_small_ones) {
  for (CUdeviceptr offset = 0; offset < 100 * KiB; offset += KiB) {
    write(one + offset, first);
  }
  order(second, first);
  write(two, second, 100 * KiB);
  write(one + 50 * KiB, first, 1);
  expect_race();
}

TEST_F(SimAliases, one_address_alone_is_checked_as_well) {
  write(one, first);
  write(one, second);
  expect_race();
}

TEST_F(SimAliases, a_mapping_ends_while_work_goes_through_the_other_one) {
  write(one, first);
  EXPECT_OK(cuMemUnmap(two, step));
  EXPECT_OK(cuMemUnmap(one, step));
  expect_violation("is unmapped while work of cuMemsetD8Async on it is pending");
}

TEST_F(SimAliases, a_mapping_ends_after_its_work_whatever_is_pending_elsewhere) {
  write(one, first);
  const CUevent done = record_on(first);
  write(elsewhere, first);
  EXPECT_OK(cuEventSynchronize(done));
  EXPECT_OK(cuMemUnmap(one, step));
  EXPECT_GT(cenote_sim_pending(), 0U);
}

TEST_F(SimAliases, a_page_may_be_unmapped_and_mapped_again_under_other_work) {
  write(one, first);
  EXPECT_OK(cuStreamSynchronize(first));
  read(two, second);
  EXPECT_OK(cuMemUnmap(one, step));
  map(one);
  write(one, first);
  expect_race();
  EXPECT_OK(cuStreamSynchronize(second));
  write(one, first);
}

}  // namespace
}  // namespace cenote::sim_test
