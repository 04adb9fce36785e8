// Several machines in one process: what a reset ends, what it leaves valid, and what old handles and addresses do then.
#include <algorithm>
#include <atomic>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimReset : public Sim {
 protected:
  void TearDown() override {
    reset("devices=2,memory=1GiB");
    EXPECT_OK(cuCtxSetCurrent(contexts[0]));
    Sim::TearDown();
  }

  void reset(const char* settings) {
    char why[256] = "";
    EXPECT_EQ(0, cenote_sim_reset(settings, why, sizeof why)) << why;
  }

  static int device_count() {
    int count = -1;
    EXPECT_OK(cuDeviceGetCount(&count));
    return count;
  }
};

TEST_F(SimReset, the_next_machine_is_as_it_was_told) {
  reset("devices=3,memory=2GiB,driver=12040,name=another");
  EXPECT_EQ(3, device_count());
  char name[32] = "";
  EXPECT_OK(cuDeviceGetName(name, sizeof name, 2));
  EXPECT_STREQ("another", name);
  std::size_t bytes = 0;
  EXPECT_OK(cuDeviceTotalMem(&bytes, 2));
  EXPECT_EQ(2048 * MiB, bytes);
  int version = 0;
  EXPECT_OK(cuDriverGetVersion(&version));
  EXPECT_EQ(12040, version);
}

TEST_F(SimReset, what_is_wrong_is_told_and_changes_nothing) {
  const CUdeviceptr memory = make_memory();
  char why[256] = "";
  EXPECT_EQ(-1, cenote_sim_reset("devices=65", why, sizeof why));
  EXPECT_STREQ("devices=65: an integer from 0 to 64 is expected", why);
  EXPECT_EQ(-1, cenote_sim_check("devices=1,devices=2", why, sizeof why));
  EXPECT_STREQ("'devices' is given twice", why);
  EXPECT_EQ(-1, cenote_sim_check("memory=-5B", why, sizeof why));
  EXPECT_EQ(0, cenote_sim_check("memory=5GB,mig=7,poison=1", why, sizeof why));
  EXPECT_EQ(1U, live().allocations);
  EXPECT_OK(cuMemFree(memory));
}

TEST_F(SimReset, memory_of_every_kind_is_gone_and_its_bytes_are_free) {
  make_memory(512 * MiB);
  make_pinned();
  CUdeviceptr managed = 0;
  EXPECT_OK(cuMemAllocManaged(&managed, MiB, CU_MEM_ATTACH_GLOBAL));
  CUdeviceptr pooled = 0;
  EXPECT_OK(cuMemAllocAsync(&pooled, MiB, make_stream()));
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = on_device(0);
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_OK(cuMemCreate(&handle, 2 * MiB, &properties, 0));
  CUdeviceptr reserved = 0;
  EXPECT_OK(cuMemAddressReserve(&reserved, 4 * MiB, 0, 0, 0));
  EXPECT_OK(cuMemMap(reserved, 2 * MiB, 0, handle, 0));

  reset("devices=2,memory=1GiB");
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_EQ(card_bytes, free_bytes());
  const auto left = live();
  EXPECT_EQ(0U, left.device_bytes + left.pinned_bytes + left.managed_bytes + left.allocations);
  EXPECT_EQ(0U, left.pools + left.streams + left.events + left.reservations + left.mappings + left.handles);
  EXPECT_EQ(0U, cenote_sim_list_live(nullptr, 0));
}

TEST_F(SimReset, freeing_what_is_gone_is_taken_and_does_nothing) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory();
  unsigned char* const pinned = make_pinned();
  CUdeviceptr pooled = 0;
  EXPECT_OK(cuMemAllocAsync(&pooled, MiB, stream));
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = on_device(0);
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_OK(cuMemCreate(&handle, 2 * MiB, &properties, 0));
  CUdeviceptr reserved = 0;
  EXPECT_OK(cuMemAddressReserve(&reserved, 2 * MiB, 0, 0, 0));
  EXPECT_OK(cuMemMap(reserved, 2 * MiB, 0, handle, 0));

  reset("devices=2,memory=1GiB");
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  CUmemGenericAllocationHandle other = 0;
  EXPECT_OK(cuMemCreate(&other, 2 * MiB, &properties, 0));
  EXPECT_NE(handle, other);
  EXPECT_OK(cuMemFree(memory));
  EXPECT_OK(cuMemFree(memory));
  EXPECT_OK(cuMemFreeHost(pinned));
  EXPECT_OK(cuMemFreeAsync(pooled, stream));
  EXPECT_OK(cuMemUnmap(reserved, 2 * MiB));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(reserved, 2 * MiB));
  EXPECT_EQ(1U, live().handles) << "the other one's";
  EXPECT_OK(cuMemRelease(other));
}

TEST_F(SimReset, using_what_is_gone_is_refused_and_written_down_and_harms_nobody) {
  const CUdeviceptr old = make_memory();
  unsigned char* const pinned = make_pinned();
  reset("devices=2,memory=1GiB");
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  const CUdeviceptr fresh = make_memory();
  EXPECT_NE(old, fresh) << "its address is not given out again soon";
  pinned[0] = 1;  // the host may still touch it
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(old, 1, 8, nullptr));
  expect_violation("before the last reset");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpy(fresh, old, 8));
  expect_violation("before the last reset");
}

TEST_F(SimReset, streams_events_pools_and_contexts_stay_valid) {
  const CUstream stream = make_stream();
  const CUevent event = make_event();
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = on_device(0);
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cuMemPoolCreate(&pool, &properties));
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAllocFromPoolAsync(&memory, MiB, pool, stream));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 8, stream));
  EXPECT_OK(cuEventRecord(event, stream));

  reset("devices=2,memory=1GiB");
  EXPECT_EQ(0U, cenote_sim_pending()) << "the work has run";
  EXPECT_OK(cuEventQuery(event));
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_OK(cuMemAllocFromPoolAsync(&memory, MiB, pool, stream));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_OK(cuMemPoolDestroy(pool));
  EXPECT_OK(cuEventDestroy(event));
  EXPECT_OK(cuStreamDestroy(stream));
}

TEST_F(SimReset, a_device_that_is_gone_is_refused_until_there_is_one_again) {
  EXPECT_OK(cuCtxSetCurrent(contexts[1]));
  const CUstream stream = make_stream();
  reset("devices=1,memory=1GiB");
  CUdevice device = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent(contexts[1]));
  CUcontext current = contexts[0];
  EXPECT_OK(cuCtxGetCurrent(&current));
  EXPECT_EQ(nullptr, current) << "the calling thread has none";
  reset("devices=2,memory=1GiB");
  EXPECT_OK(cuCtxSetCurrent(contexts[1]));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(card_bytes, free_bytes());
}

TEST_F(SimReset, a_machine_may_have_no_device_and_the_next_one_some) {
  reset("devices=0");
  EXPECT_EQ(0, cenote_sim_initialized());
  int count = 0;
  EXPECT_EQ(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&count));
  reset("devices=2,memory=1GiB");
  EXPECT_EQ(2, device_count());
}

TEST_F(SimReset, a_capture_ends_and_its_stream_can_be_used) {
  const CUstream stream = make_stream();
  EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAllocAsync(&memory, MiB, stream));
  reset("devices=2,memory=1GiB");
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_OK(cuMemAllocAsync(&memory, MiB, stream));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
}

TEST_F(SimReset, host_functions_that_were_queued_have_run) {
  std::atomic<bool> ran = false;
  EXPECT_OK(cuLaunchHostFunc(make_stream(), [](void* flag) { *static_cast<std::atomic<bool>*>(flag) = true; }, &ran));
  reset("devices=2,memory=1GiB");
  EXPECT_TRUE(ran);
}

TEST_F(SimReset, counts_armed_failures_and_violations_start_anew) {
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(0x1000));
  EXPECT_EQ(0, cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY));
  reset("devices=2,memory=1GiB");
  EXPECT_EQ(0, cenote_sim_violation_count());
  EXPECT_EQ(0, cenote_sim_calls(nullptr));
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_OK(cuMemFree(make_memory()));
}

TEST_F(SimReset, default_pools_are_as_at_the_start) {
  CUmemoryPool initial = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&initial, 0));
  cuuint64_t threshold = UINT64_MAX;
  EXPECT_OK(cuMemPoolSetAttribute(initial, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  reset("devices=3,memory=1GiB");
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&pool, 0));
  EXPECT_EQ(initial, pool);
  EXPECT_OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  EXPECT_EQ(0U, threshold);
  EXPECT_OK(cuDeviceGetDefaultMemPool(&pool, 2));
  EXPECT_EQ(0U, live().pools);
}

TEST_F(SimReset, thousands_of_machines_with_large_cards_find_addresses) {
  for (int i = 0; i < 3000; ++i) {
    reset("devices=1,memory=80GiB");
    EXPECT_OK(cuCtxSetCurrent(contexts[0]));
    CUdeviceptr memory = 0;
    ASSERT_OK(cuMemAlloc(&memory, std::size_t{79} << 30)) << i;
  }
}

TEST_F(SimReset, every_byte_of_fresh_and_of_freed_memory_is_overwritten_where_asked_for) {
  reset("devices=2,memory=1GiB,poison=1");
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
  constexpr std::size_t bytes = 4 * MiB;
  const auto all_are = [](CUdeviceptr address, unsigned char value) {
    const auto* const first = reinterpret_cast<const unsigned char*>(address);
    return std::all_of(first, first + bytes, [&](unsigned char byte) { return byte == value; });
  };
  const CUdeviceptr memory = make_memory(bytes);
  EXPECT_TRUE(all_are(memory, 0xa5));
  EXPECT_OK(cuMemsetD8Async(memory, 1, bytes, nullptr));
  EXPECT_OK(cuMemFree(memory));
  EXPECT_TRUE(all_are(memory, 0xdd));

  const CUstream stream = make_stream();
  CUdeviceptr pooled = 0;
  EXPECT_OK(cuMemAllocAsync(&pooled, bytes, stream));
  EXPECT_TRUE(all_are(pooled, 0xa5));
  EXPECT_OK(cuMemsetD8Async(pooled, 1, bytes, stream));
  EXPECT_OK(cuMemFreeAsync(pooled, stream));
  CUdeviceptr again = 0;
  EXPECT_OK(cuMemAllocAsync(&again, bytes, stream));
  EXPECT_EQ(pooled, again);
  EXPECT_OK(cuMemsetD8Async(again, 2, 1, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(2, byte_at(again)) << "in the order of the stream";
  EXPECT_EQ(0xdd, byte_at(again + 1));
  EXPECT_OK(cuMemFreeAsync(again, stream));
}

TEST_F(SimReset, what_is_live_is_listed_in_the_order_in_which_it_was_made) {
  const CUdeviceptr memory = make_memory(1000);
  const CUstream stream = make_stream();
  cenote_sim_live_object found[4]{};
  ASSERT_EQ(2U, cenote_sim_list_live(found, 4));
  EXPECT_STREQ("device memory", found[0].kind);
  EXPECT_STREQ("cuMemAlloc", found[0].made_by);
  EXPECT_EQ(memory, found[0].handle);
  EXPECT_EQ(1000U, found[0].bytes);
  EXPECT_EQ(0, found[0].device);
  EXPECT_STREQ("stream", found[1].kind);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(stream), found[1].handle);
  EXPECT_LT(found[0].number, found[1].number);
  EXPECT_EQ(2U, cenote_sim_list_live(found, 1)) << "how many there are, whatever fits";
  EXPECT_OK(cuMemFree(memory));
  EXPECT_OK(cuStreamDestroy(stream));
  EXPECT_EQ(0U, cenote_sim_list_live(found, 4));
}

TEST_F(SimReset, failures_may_be_several_in_a_row_or_all_from_the_nth_call_on) {
  const auto allocate = [] {
    CUdeviceptr memory = 0;
    return cuMemAlloc(&memory, KiB);
  };
  EXPECT_EQ(0, cenote_sim_fail_from("cuMemAlloc", 2, 2, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_OK(allocate());
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, allocate());
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, allocate());
  EXPECT_OK(allocate());
  EXPECT_EQ(0, cenote_sim_fail_from("cuMemAlloc", 2, 0, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_OK(allocate());
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, allocate());
  }
  EXPECT_EQ(0, cenote_sim_fail("cuMemAlloc", 0, 0));
  EXPECT_OK(allocate());
  EXPECT_EQ(-1, cenote_sim_fail_from("cuMemAlloc", 1, -1, CUDA_ERROR_OUT_OF_MEMORY));
}

}  // namespace
}  // namespace cenote::sim_test
