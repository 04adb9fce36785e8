// A machine whose devices may use any memory of the host: the setting pageable=1.
#include <memory>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimPageable : public Sim {
 protected:
  static void SetUpTestSuite() {
    setenv("CENOTE_SIM", "devices=2,memory=1GiB,pageable=1", 1);
    ASSERT_OK(cuInit(0));
  }

  static CUdeviceptr address_of(const void* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

  const std::unique_ptr<unsigned char[]> heap_ = std::make_unique<unsigned char[]>(KiB);
  const CUdeviceptr heap = address_of(heap_.get());
};

TEST_F(SimPageable, the_devices_say_so) {
  for (const CUdevice device : {0, 1}) {
    int value = -1;
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, device));
    EXPECT_EQ(1, value);
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, device));
    EXPECT_EQ(0, value);
  }
}

TEST_F(SimPageable, device_work_on_the_hosts_own_memory_runs_in_stream_order) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory(KiB);
  EXPECT_OK(cuMemsetD8Async(heap, 7, KiB, stream));
  EXPECT_EQ(0, heap_[0]) << "not before something waits for it";
  EXPECT_OK(cuMemcpyAsync(memory, heap, KiB, stream));
  EXPECT_OK(cuMemsetD8Async(heap, 8, KiB, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(7, byte_at(memory));
  EXPECT_EQ(8, heap_[KiB - 1]);
}

TEST_F(SimPageable, a_copy_out_of_the_hosts_own_memory_reads_it_at_the_call) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory(1);
  heap_[0] = 1;
  EXPECT_OK(cuMemcpyAsync(memory, heap, 1, stream));
  heap_[0] = 2;
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(1, byte_at(memory));
}

TEST_F(SimPageable, the_hosts_own_memory_may_be_prefetched_and_advised_and_is_not_asked_about) {
  CUmemLocation here{};
  here.type = CU_MEM_LOCATION_TYPE_DEVICE;
  EXPECT_OK(cuMemPrefetchAsync(heap, KiB, here, 0, nullptr));
  EXPECT_OK(cuMemAdvise(heap, KiB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, here));
  here.id = 2;
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuMemPrefetchAsync(heap, KiB, here, 0, nullptr));
  int answer = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE,
            cuMemRangeGetAttribute(&answer, sizeof answer, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, heap, KiB));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&answer, CU_POINTER_ATTRIBUTE_IS_MANAGED, heap));
}

TEST_F(SimPageable, memory_of_the_driver_is_no_memory_of_the_host) {
  CUmemLocation here{};
  here.type = CU_MEM_LOCATION_TYPE_DEVICE;
  const CUdeviceptr freed = make_memory(KiB);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(freed, KiB, here, 0, nullptr));
  EXPECT_OK(cuMemFree(freed));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(freed, 0, KiB, nullptr));
  expect_violation("not all in live memory");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(freed, KiB, here, 0, nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(0, 0, KiB, nullptr));
}

}  // namespace
}  // namespace cenote::sim_test
