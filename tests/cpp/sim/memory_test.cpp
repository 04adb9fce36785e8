// Device, pinned, managed and pooled memory, and what the driver tells about a pointer.
#include <algorithm>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimMemory : public Sim {
 protected:
  template <class Value>
  static Value attribute(CUpointer_attribute which, CUdeviceptr address) {
    Value value{};
    EXPECT_OK(cuPointerGetAttribute(&value, which, address));
    return value;
  }
};

TEST_F(SimMemory, a_card_is_charged_in_steps_of_512_bytes_and_exactly) {
  const auto before = free_bytes();
  EXPECT_EQ(card_bytes, before);
  const CUdeviceptr one = make_memory(1);
  EXPECT_EQ(before - 512, free_bytes());
  const CUdeviceptr more = make_memory(513);
  EXPECT_EQ(before - 512 - 1024, free_bytes());
  EXPECT_OK(cuMemFree(one));
  EXPECT_OK(cuMemFree(more));
  EXPECT_EQ(before, free_bytes());
}

TEST_F(SimMemory, each_card_has_its_own_account) {
  const CUdeviceptr memory = make_memory(MiB);
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_OK(cuMemFree(memory)) << "whatever device is current";
  EXPECT_OK(cuCtxPopCurrent(nullptr));
  EXPECT_EQ(card_bytes, free_bytes());
}

TEST_F(SimMemory, a_full_card_says_so_and_stays_as_it_was) {
  const CUdeviceptr most = make_memory(card_bytes - MiB);
  CUdeviceptr memory = 0;
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&memory, MiB + 1));
  EXPECT_EQ(MiB, free_bytes());
  EXPECT_OK(cuMemAlloc(&memory, MiB));
  EXPECT_EQ(0U, free_bytes());
  EXPECT_OK(cuMemFree(most));
}

TEST_F(SimMemory, sizes_beyond_reason_are_out_of_memory_and_no_overflow) {
  CUdeviceptr memory = 0;
  void* host = nullptr;
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&pool, 0));
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - 511, std::size_t{1} << 60}) {
    EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&memory, bytes));
    EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemHostAlloc(&host, bytes, 0));
    EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocManaged(&memory, bytes, CU_MEM_ATTACH_GLOBAL));
    EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocFromPoolAsync(&memory, bytes, pool, nullptr));
  }
}

TEST_F(SimMemory, nothing_is_an_invalid_size_for_memory_and_a_null_pointer_for_pinned_and_pooled) {
  CUdeviceptr memory = 1;
  void* host = this;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(&memory, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAllocManaged(&memory, 0, CU_MEM_ATTACH_GLOBAL));
  EXPECT_OK(cuMemHostAlloc(&host, 0, 0));
  EXPECT_EQ(nullptr, host);
  EXPECT_OK(cuMemAllocAsync(&memory, 0, nullptr));
  EXPECT_EQ(0U, memory);
}

TEST_F(SimMemory, addresses_are_aligned_and_freed_ones_come_again) {
  const CUdeviceptr first = make_memory(100);
  const CUdeviceptr second = make_memory(100);
  EXPECT_EQ(0U, first % 512);
  EXPECT_EQ(0U, second % 512);
  EXPECT_OK(cuMemFree(first));
  EXPECT_EQ(first, make_memory(100));
}

TEST_F(SimMemory, fresh_memory_is_not_zero_by_accident) {
  EXPECT_NE(0, byte_at(make_memory(KiB)));
  EXPECT_NE(0, byte_at(make_memory(100 * MiB)));
  const CUdeviceptr written = make_memory(MiB);
  EXPECT_OK(cuMemsetD8Async(written, 0, MiB, nullptr));
  EXPECT_OK(cuMemFree(written));
  EXPECT_NE(0, byte_at(make_memory(MiB)));
}

TEST_F(SimMemory, an_unknown_pointer_or_a_second_free_is_refused_and_written_down) {
  const CUdeviceptr memory = make_memory(KiB);
  int local = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory + 256));
  expect_violation("cuMemFree: pointer");
  EXPECT_OK(cuMemFree(memory));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory));
  expect_violation("cuMemFree: pointer");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(reinterpret_cast<CUdeviceptr>(&local)));
  expect_violation("cuMemFree: pointer");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(&local));
  expect_violation("cuMemFreeHost: pointer");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(reinterpret_cast<void*>(make_memory())));
  expect_violation("cuMemFreeHost: pointer");
  EXPECT_OK(cuMemFree(0));
  EXPECT_OK(cuMemFreeHost(nullptr));
}

TEST_F(SimMemory, freeing_waits_for_all_work_of_the_device) {
  const CUstream stream = make_stream();
  unsigned char* const memory = make_pinned(1, 0);
  const CUdeviceptr freed = make_memory();
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, stream));
  EXPECT_OK(cuMemFree(freed));
  EXPECT_EQ(1, memory[0]);
}

TEST_F(SimMemory, work_must_stay_inside_an_allocation) {
  const CUdeviceptr memory = make_memory(KiB);
  const CUstream stream = make_stream();
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(memory + 1, 0, KiB, stream));
  expect_violation("past the end");
  EXPECT_OK(cuMemFree(memory));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(memory, 0, KiB, stream));
  expect_violation("not all in live memory");
  unsigned char pageable = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(&pageable), 0, 1, stream));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(0, memory, 1, stream));
  EXPECT_OK(cuMemsetD8Async(0, 0, 0, stream)) << "nothing to do is no mistake";
}

TEST_F(SimMemory, managed_memory_is_not_freed_in_stream_order) {
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAllocManaged(&memory, KiB, CU_MEM_ATTACH_GLOBAL));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemFreeAsync(memory, nullptr));
  EXPECT_OK(cuMemFree(memory));
}

TEST_F(SimMemory, the_devices_side_of_a_copy_is_not_the_hosts_own_memory) {
  unsigned char host[16] = {};
  const auto as_device = reinterpret_cast<CUdeviceptr>(host);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(as_device, host + 8, 8));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(host + 8, as_device, 8));
  EXPECT_OK(cuMemcpyHtoD(as_device, host, 0));
}

TEST_F(SimMemory, managed_memory_may_be_larger_than_the_card) {
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAllocManaged(&memory, 4 * card_bytes, CU_MEM_ATTACH_GLOBAL));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_EQ(4 * card_bytes, live().managed_bytes);
  CUmemLocation here{};
  here.type = CU_MEM_LOCATION_TYPE_DEVICE;
  here.id = 0;
  EXPECT_OK(cuMemPrefetchAsync(memory, MiB, here, 0, nullptr));
  EXPECT_OK(cuMemAdvise(memory, MiB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, here));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(make_memory(), KiB, here, 0, nullptr));
  here.id = 2;
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuMemPrefetchAsync(memory, MiB, here, 0, nullptr));
  EXPECT_OK(cuMemFree(memory));
}

TEST_F(SimMemory, a_pointer_tells_what_it_is) {
  const CUdeviceptr device = make_memory(KiB);
  const CUdeviceptr pinned = device_address(make_pinned());
  CUdeviceptr managed = 0;
  CUdeviceptr pooled = 0;
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cuMemAllocManaged(&managed, KiB, CU_MEM_ATTACH_GLOBAL));
  EXPECT_OK(cuDeviceGetMemPool(&pool, 0));
  EXPECT_OK(cuMemAllocAsync(&pooled, KiB, nullptr));

  const auto type = [](CUdeviceptr p) { return attribute<unsigned>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p); };
  EXPECT_EQ(CU_MEMORYTYPE_DEVICE, type(device));
  EXPECT_EQ(CU_MEMORYTYPE_HOST, type(pinned));
  EXPECT_EQ(CU_MEMORYTYPE_DEVICE, type(managed));
  EXPECT_EQ(CU_MEMORYTYPE_DEVICE, type(pooled));

  const auto is_managed = [](CUdeviceptr p) { return attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_MANAGED, p); };
  EXPECT_EQ(0U, is_managed(device));
  EXPECT_EQ(1U, is_managed(managed));

  EXPECT_EQ(contexts[0], attribute<CUcontext>(CU_POINTER_ATTRIBUTE_CONTEXT, device));
  EXPECT_EQ(nullptr, attribute<CUcontext>(CU_POINTER_ATTRIBUTE_CONTEXT, pooled));
  EXPECT_EQ(nullptr, attribute<CUmemoryPool>(CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, device));
  EXPECT_EQ(pool, attribute<CUmemoryPool>(CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pooled));
  EXPECT_EQ(0, attribute<int>(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, device));
  EXPECT_EQ(device + 9, attribute<CUdeviceptr>(CU_POINTER_ATTRIBUTE_DEVICE_POINTER, device + 9));
  EXPECT_EQ(device, attribute<CUdeviceptr>(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, device + 9));
  EXPECT_EQ(KiB, attribute<std::size_t>(CU_POINTER_ATTRIBUTE_RANGE_SIZE, device + 9));
  EXPECT_EQ(pinned, device_address(attribute<void*>(CU_POINTER_ATTRIBUTE_HOST_POINTER, pinned)));

  void* none = nullptr;
  int local = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&none, CU_POINTER_ATTRIBUTE_HOST_POINTER, device));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE,
            cuPointerGetAttribute(&none, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, device_address(&local)));

  unsigned kind = 7;
  int ordinal = 7;
  none = &local;
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                 CU_POINTER_ATTRIBUTE_HOST_POINTER};
  void* answers[] = {&kind, &ordinal, &none};
  EXPECT_OK(cuPointerGetAttributes(3, asked, answers, device));
  EXPECT_EQ(CU_MEMORYTYPE_DEVICE, kind);
  EXPECT_EQ(0, ordinal);
  EXPECT_EQ(nullptr, none);  // what one attribute is refused for is nothing among several
  EXPECT_OK(cuPointerGetAttributes(3, asked, answers, device_address(&local)));
  EXPECT_EQ(0U, kind);
  EXPECT_EQ(CU_DEVICE_INVALID, ordinal);

  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  EXPECT_OK(cuMemGetAddressRange(&base, &bytes, device + 1023));
  EXPECT_EQ(device, base);
  EXPECT_EQ(KiB, bytes);
  EXPECT_OK(cuMemFree(pooled));
}

class SimPool : public SimMemory {
 protected:
  CUmemoryPool make_pool(std::size_t max_bytes = 0) {
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.maxSize = max_bytes;
    CUmemoryPool pool = nullptr;
    EXPECT_OK(cuMemPoolCreate(&pool, &properties));
    return pool;
  }

  static CUdeviceptr take(CUmemoryPool pool, std::size_t bytes, CUstream stream) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAllocFromPoolAsync(&address, bytes, pool, stream));
    return address;
  }

  static cuuint64_t get(CUmemoryPool pool, CUmemPool_attribute attribute) {
    cuuint64_t value = 0;
    EXPECT_OK(cuMemPoolGetAttribute(pool, attribute, &value));
    return value;
  }

  static void set(CUmemoryPool pool, CUmemPool_attribute attribute, cuuint64_t value) {
    EXPECT_OK(cuMemPoolSetAttribute(pool, attribute, &value));
  }
};

TEST_F(SimPool, freed_memory_is_reused_at_once_on_its_stream_and_elsewhere_once_the_free_has_run) {
  const CUmemoryPool pool = make_pool();
  set(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, UINT64_MAX);
  const CUstream stream = make_stream();
  const CUstream other = make_stream();
  const CUdeviceptr first = take(pool, MiB, stream);
  EXPECT_OK(cuMemFreeAsync(first, stream));
  const CUdeviceptr elsewhere = take(pool, MiB, other);
  EXPECT_NE(first, elsewhere);
  EXPECT_EQ(first, take(pool, MiB, stream));
  EXPECT_OK(cuMemFreeAsync(first, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(first, take(pool, MiB, other));
  EXPECT_OK(cuMemFreeAsync(first, other));
  EXPECT_OK(cuMemFreeAsync(elsewhere, other));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, a_synchronisation_releases_what_is_above_the_threshold) {
  const CUmemoryPool pool = make_pool();
  const CUstream stream = make_stream();
  EXPECT_OK(cuMemFreeAsync(take(pool, 8 * MiB, stream), stream));
  EXPECT_EQ(8 * MiB, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  EXPECT_EQ(card_bytes - 8 * MiB, free_bytes());
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(0U, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  EXPECT_EQ(card_bytes, free_bytes());

  set(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, UINT64_MAX);
  EXPECT_OK(cuMemFreeAsync(take(pool, 8 * MiB, stream), stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(8 * MiB, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  EXPECT_OK(cuMemPoolTrimTo(pool, 0));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, use_is_counted_and_its_high_mark_can_be_reset) {
  const CUmemoryPool pool = make_pool();
  const CUstream stream = make_stream();
  const CUdeviceptr first = take(pool, 1000, stream);
  const CUdeviceptr second = take(pool, 1000, stream);
  EXPECT_EQ(2048U, get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT));
  EXPECT_OK(cuMemFreeAsync(second, stream));
  EXPECT_EQ(1024U, get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT));
  EXPECT_EQ(2048U, get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH));
  set(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0);
  EXPECT_EQ(1024U, get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH));
  EXPECT_EQ(2 * MiB, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH));
  EXPECT_OK(cuMemFreeAsync(first, stream));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, a_pool_grows_to_its_own_limit_and_to_the_cards) {
  const CUmemoryPool small = make_pool(4 * MiB);
  const CUmemoryPool large = make_pool();
  const CUstream stream = make_stream();
  CUdeviceptr address = 0;
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocFromPoolAsync(&address, 4 * MiB + 1, small, stream));
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocFromPoolAsync(&address, card_bytes + 1, large, stream));
  EXPECT_OK(cuMemFreeAsync(take(large, card_bytes, stream), stream));
  EXPECT_OK(cuMemPoolDestroy(small));
  EXPECT_OK(cuMemPoolDestroy(large));
}

TEST_F(SimPool, a_destroyed_pool_keeps_its_memory_until_the_last_block_is_freed) {
  const CUmemoryPool pool = make_pool();
  const CUstream stream = make_stream();
  const CUdeviceptr block = take(pool, MiB, stream);
  EXPECT_OK(cuMemPoolDestroy(pool));
  CUdeviceptr address = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAllocFromPoolAsync(&address, MiB, pool, stream));
  expect_violation("cuMemAllocFromPoolAsync: pool");
  EXPECT_EQ(card_bytes - 2 * MiB, free_bytes());
  EXPECT_OK(cuMemsetD8Async(block, 1, MiB, stream));
  EXPECT_OK(cuMemFreeAsync(block, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_EQ(0U, live().pools);
}

TEST_F(SimPool, work_that_runs_after_the_free_of_its_memory_is_written_down) {
  const CUmemoryPool pool = make_pool();
  const CUstream owner = make_stream();
  const CUstream stranger = make_stream();
  const CUdeviceptr block = take(pool, KiB, owner);
  EXPECT_OK(cuMemsetD8Async(block, 1, KiB, stranger));
  EXPECT_OK(cuMemFreeAsync(block, owner));
  EXPECT_OK(cuStreamSynchronize(owner));
  EXPECT_OK(cuStreamSynchronize(stranger));
  const auto lines = take_violations();
  ASSERT_EQ(1U, lines.size());
  EXPECT_NE(std::string::npos, lines[0].find("work of cuMemsetD8Async ran after cuMemFreeAsync")) << lines[0];
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, work_before_the_free_is_in_order_even_when_the_address_is_already_reused) {
  const CUmemoryPool pool = make_pool();
  const CUstream stream = make_stream();
  unsigned char* const seen = make_pinned(1, 0);
  const CUdeviceptr first = take(pool, KiB, stream);
  EXPECT_OK(cuMemsetD8Async(first, 1, KiB, stream));
  EXPECT_OK(cuMemcpyAsync(device_address(seen), first, 1, stream));
  EXPECT_OK(cuMemFreeAsync(first, stream));
  const CUdeviceptr second = take(pool, KiB, stream);
  EXPECT_EQ(first, second);
  EXPECT_OK(cuMemsetD8Async(second, 2, KiB, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(1, seen[0]);
  EXPECT_EQ(2, byte_at(second));
  EXPECT_OK(cuMemFree(second));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, memory_is_not_touched_or_freed_after_the_call_that_frees_it) {
  const CUmemoryPool pool = make_pool();
  const CUstream stream = make_stream();
  const CUdeviceptr block = take(pool, KiB, stream);
  EXPECT_OK(cuMemFreeAsync(block, stream));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(block, 1, KiB, stream));
  expect_violation("cuMemsetD8Async");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(block, stream));
  expect_violation("cuMemFreeAsync: pointer");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(block));
  expect_violation("cuMemFree: pointer");
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPool, memory_of_cuMemAlloc_can_be_freed_in_stream_order) {
  const CUstream stream = make_stream();
  const CUdeviceptr memory = make_memory(MiB);
  EXPECT_OK(cuMemsetD8Async(memory, 1, MiB, stream));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_EQ(card_bytes - MiB, free_bytes());
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(card_bytes, free_bytes());
}

TEST_F(SimPool, the_current_pool_of_a_device_can_be_replaced_and_the_default_one_not_destroyed) {
  CUmemoryPool initial = nullptr;
  CUmemoryPool current = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&initial, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPoolDestroy(initial));
  const CUmemoryPool pool = make_pool();
  EXPECT_OK(cuDeviceSetMemPool(0, pool));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuDeviceSetMemPool(1, pool));
  CUdeviceptr address = 0;
  EXPECT_OK(cuMemAllocAsync(&address, KiB, nullptr));
  EXPECT_EQ(pool, attribute<CUmemoryPool>(CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address));
  EXPECT_OK(cuMemFree(address));
  EXPECT_OK(cuMemPoolDestroy(pool));
  EXPECT_OK(cuDeviceGetMemPool(&current, 0));
  EXPECT_EQ(initial, current);
}

TEST_F(SimPool, handles_of_a_fabric_are_not_supported) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.handleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
  CUmemoryPool pool = nullptr;
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemPoolCreate(&pool, &properties));
  properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  EXPECT_OK(cuMemPoolCreate(&pool, &properties));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimMemory, host_memory_is_pinned_from_its_registration_to_its_end) {
  std::vector<unsigned char> host(8 * KiB, 7);
  const CUdeviceptr device = make_memory(8 * KiB);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister(nullptr, KiB, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister(host.data(), 0, 0));
  ASSERT_OK(cuMemHostRegister(host.data(), 4 * KiB, CU_MEMHOSTREGISTER_PORTABLE));
  EXPECT_EQ(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(host.data() + KiB, KiB, 0));
  const CUstream stream = make_stream();
  EXPECT_OK(cuMemcpyAsync(device, device_address(host.data()), 4 * KiB, stream));
  host[0] = 9;  // read when the copy runs, as it is pinned
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(9, byte_at(device));
  EXPECT_OK(cuMemHostUnregister(host.data()));
  EXPECT_EQ(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(host.data()));
  EXPECT_OK(cuMemFree(device));
  EXPECT_OK(cuStreamDestroy(stream));
}

}  // namespace
}  // namespace cenote::sim_test
