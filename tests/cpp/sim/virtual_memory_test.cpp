// The virtual memory interface: reserve, create, map, set access, and back.
#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimVirtualMemory : public Sim {
 protected:
  static CUmemAllocationProp on_device(int ordinal) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = ordinal;
    return properties;
  }

  static CUdeviceptr reserve(std::size_t bytes, std::size_t alignment = 0) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAddressReserve(&address, bytes, alignment, 0, 0));
    return address;
  }

  static CUmemGenericAllocationHandle create(std::size_t bytes, int ordinal = 0) {
    CUmemGenericAllocationHandle handle = 0;
    const auto properties = on_device(ordinal);
    EXPECT_OK(cuMemCreate(&handle, bytes, &properties, 0));
    return handle;
  }

  static CUresult allow(CUdeviceptr address, std::size_t bytes, int ordinal = 0) {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = ordinal;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return cuMemSetAccess(address, bytes, &access, 1);
  }

  static unsigned long long access_at(CUdeviceptr address, int ordinal) {
    const CUmemLocation card = at(CU_MEM_LOCATION_TYPE_DEVICE, ordinal);
    unsigned long long flags = 0;
    EXPECT_OK(cuMemGetAccess(&flags, &card, address));
    return flags;
  }

  void TearDown() override {
    EXPECT_EQ(0U, live().mappings);
    EXPECT_EQ(0U, live().handles);
    EXPECT_EQ(0U, live().reservations);
    EXPECT_EQ(card_bytes, free_bytes());
    Sim::TearDown();
  }
};

TEST_F(SimVirtualMemory, addresses_cost_nothing_and_physical_memory_is_charged) {
  const CUdeviceptr address = reserve(64 * card_bytes);
  EXPECT_EQ(card_bytes, free_bytes());
  const auto handle = create(4 * step);
  EXPECT_EQ(card_bytes - 4 * step, free_bytes());
  EXPECT_OK(cuMemMap(address, 4 * step, 0, handle, 0));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_EQ(card_bytes - 4 * step, free_bytes()) << "the mapping keeps it";
  EXPECT_OK(cuMemUnmap(address, 4 * step));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_OK(cuMemAddressFree(address, 64 * card_bytes));
}

TEST_F(SimVirtualMemory, two_addresses_of_one_handle_are_one_memory) {
  const CUdeviceptr address = reserve(2 * step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_OK(cuMemMap(address + step, step, 0, handle, 0));
  EXPECT_OK(allow(address, 2 * step));
  EXPECT_OK(cuMemsetD8Async(address, 42, KiB, nullptr));
  unsigned char seen = 0;
  EXPECT_OK(cuMemcpyDtoH(&seen, address + step, 1));
  EXPECT_EQ(42, seen);
  EXPECT_OK(cuMemUnmap(address, 2 * step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
}

TEST_F(SimVirtualMemory, fresh_memory_is_no_zeros) {
  const CUdeviceptr address = reserve(step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_OK(allow(address, step));
  EXPECT_EQ(0xa5, byte_at(address));
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, step));
}

TEST_F(SimVirtualMemory, contents_stay_with_the_handle_when_it_moves) {
  const CUdeviceptr address = reserve(2 * step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_OK(allow(address, step));
  EXPECT_OK(cuMemsetD8Async(address, 42, 1, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_OK(cuMemMap(address + step, step, 0, handle, 0));
  EXPECT_OK(allow(address + step, step));
  EXPECT_EQ(42, byte_at(address + step));
  EXPECT_OK(cuMemUnmap(address + step, step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
}

TEST_F(SimVirtualMemory, work_may_span_neighbouring_mappings) {
  const CUdeviceptr address = reserve(2 * step);
  const auto first = create(step);
  const auto second = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, first, 0));
  EXPECT_OK(cuMemMap(address + step, step, 0, second, 0));
  EXPECT_OK(allow(address, 2 * step));
  EXPECT_OK(cuMemsetD8Async(address + step - 1, 3, 2, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_EQ(3, byte_at(address + step - 1));
  EXPECT_EQ(3, byte_at(address + step));
  EXPECT_OK(cuMemUnmap(address, 2 * step));
  EXPECT_OK(cuMemRelease(first));
  EXPECT_OK(cuMemRelease(second));
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
}

TEST_F(SimVirtualMemory, work_may_not_span_a_place_where_nothing_is_mapped) {
  const CUdeviceptr address = reserve(3 * step);
  const auto first = create(step);
  const auto third = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, first, 0));
  EXPECT_OK(cuMemMap(address + 2 * step, step, 0, third, 0));
  EXPECT_OK(allow(address, step));
  EXPECT_OK(allow(address + 2 * step, step));
  const CUdeviceptr other = make_memory(3 * step);
  for (const auto& [at, bytes] : {std::pair{address, 3 * step}, std::pair{address + step - 1, std::size_t{2}},
                                  std::pair{address + 2 * step - 1, std::size_t{2}}}) {
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(at, 1, bytes, nullptr));
    expect_violation("are not all in live memory");
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(other, at, bytes, nullptr));
    expect_violation("are not all in live memory");
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(at, other, bytes, nullptr));
    expect_violation("are not all in live memory");
  }
  EXPECT_OK(cuMemFree(other));
  EXPECT_OK(cuMemUnmap(address, 3 * step));
  EXPECT_OK(cuMemRelease(first));
  EXPECT_OK(cuMemRelease(third));
  EXPECT_OK(cuMemAddressFree(address, 3 * step));
}

TEST_F(SimVirtualMemory, memory_without_access_is_refused) {
  const CUdeviceptr address = reserve(step);
  const auto handle = create(step);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(address, 1, 1, nullptr));
  expect_violation("not all in live memory");
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(address, 1, 1, nullptr));
  expect_violation("access to it was never set");
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, step));
}

TEST_F(SimVirtualMemory, a_card_touches_what_is_open_to_it_alone) {
  const CUdeviceptr address = reserve(2 * step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_OK(allow(address, step));
  EXPECT_OK(cuMemMap(address + step, step, 0, handle, 0));
  EXPECT_OK(allow(address + step, step, 1));
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_NONE, access_at(address, 1));
  ASSERT_OK(cuCtxSetCurrent(contexts[1]));
  const CUdeviceptr others = make_memory();
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpy(others, address, KiB));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpy(address, others, KiB));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(address, 1, KiB, nullptr));
  EXPECT_OK(cuMemcpy(others, address + step, KiB)) << "its other address";
  ASSERT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(address + step, 1, KiB, nullptr));
  EXPECT_OK(allow(address, 2 * step, 1));
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_READWRITE, access_at(address, 0)) << "one card more closes no other out";
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_READWRITE, access_at(address, 1));
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_NONE, access_at(address + step, 0)) << "nor does it open the neighbour's";
  EXPECT_OK(cuMemUnmap(address, 2 * step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
}

TEST_F(SimVirtualMemory, unmapping_under_queued_work_is_written_down_and_harms_no_one_else) {
  const CUstream stream = make_stream();
  const CUdeviceptr address = reserve(step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_OK(allow(address, step));
  EXPECT_OK(cuMemsetD8Async(address, 1, 1, stream));
  EXPECT_OK(cuMemUnmap(address, step)) << "it does not wait for work";
  expect_violation("is unmapped while work of cuMemsetD8Async on it is pending");
  EXPECT_EQ(1U, cenote_sim_pending());
  EXPECT_OK(cuStreamSynchronize(stream)) << "said once";
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, step));
}

TEST_F(SimVirtualMemory, wrong_ranges_and_dead_handles_are_refused) {
  const CUdeviceptr address = reserve(2 * step);
  const auto handle = create(step);
  CUmemGenericAllocationHandle odd = 0;
  const auto properties = on_device(0);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemCreate(&odd, 4096, &properties, 0));
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemCreate(&odd, std::size_t{1} << 60, &properties, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemMap(address + KiB, step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemMap(address + 2 * step, step, 0, handle, 0));
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemMap(address, step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(address, 2 * step));
  expect_violation("still has mappings: 1");
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(address, MiB));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(address + step, MiB)) << "where nothing is mapped, too";
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(address + KiB, step));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, allow(address, 2 * step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemRelease(handle));
  expect_violation("cuMemRelease");
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_OK(cuMemUnmap(address, step)) << "nothing is mapped there any more";
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(address, 2 * step));
}

TEST_F(SimVirtualMemory, a_handle_is_mapped_whole_or_not_at_all) {
  const CUdeviceptr address = reserve(4 * step);
  const auto handle = create(2 * step);
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, step, step, handle, 0));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, 2 * step, step, handle, 0));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, 4 * step, 0, handle, 0));
  expect_violation("8388608 bytes are mapped of physical memory that has 4194304");
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, 4096, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemMap(address, 0, 0, handle, 0));
  EXPECT_OK(cuMemMap(address, 2 * step, 0, handle, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(address, step));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(address + step, step));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, allow(address, step));
  EXPECT_OK(cuMemUnmap(address, 2 * step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, 4 * step));
}

TEST_F(SimVirtualMemory, a_range_to_unmap_may_hold_several_mappings_and_places_without_one) {
  const CUdeviceptr address = reserve(4 * step);
  const auto first = create(step);
  const auto second = create(step);
  EXPECT_OK(cuMemUnmap(address, 4 * step)) << "nothing is mapped";
  EXPECT_OK(cuMemMap(address, step, 0, first, 0));
  EXPECT_OK(cuMemMap(address + 2 * step, step, 0, second, 0));
  EXPECT_OK(cuMemUnmap(address, 3 * step));
  EXPECT_EQ(0U, live().mappings);
  EXPECT_OK(cuMemRelease(first));
  EXPECT_OK(cuMemRelease(second));
  EXPECT_OK(cuMemAddressFree(address, 4 * step));
}

TEST_F(SimVirtualMemory, access_is_one_of_three_kinds_for_a_device_that_there_is) {
  const CUdeviceptr address = reserve(step);
  const auto handle = create(step);
  EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
  const auto set = [&](CUmemLocationType type, int id, int flags) {
    const CUmemAccessDesc access{at(type, id), static_cast<CUmemAccess_flags>(flags)};
    return cuMemSetAccess(address, step, &access, 1);
  };
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(CU_MEM_LOCATION_TYPE_DEVICE, 0, 2));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(CU_MEM_LOCATION_TYPE_DEVICE, 0, 7));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(CU_MEM_LOCATION_TYPE_DEVICE, 2, 3));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(CU_MEM_LOCATION_TYPE_DEVICE, -1, 3));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(CU_MEM_LOCATION_TYPE_NONE, 0, 3));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, set(CU_MEM_LOCATION_TYPE_HOST, 0, 3));
  EXPECT_OK(set(CU_MEM_LOCATION_TYPE_DEVICE, 1, 3));
  EXPECT_OK(set(CU_MEM_LOCATION_TYPE_DEVICE, 0, 1));
  EXPECT_OK(set(CU_MEM_LOCATION_TYPE_DEVICE, 0, 0));
  EXPECT_OK(cuMemUnmap(address, step));
  EXPECT_OK(cuMemRelease(handle));
  EXPECT_OK(cuMemAddressFree(address, step));
}

TEST_F(SimVirtualMemory, a_pointer_into_it_is_of_one_page_and_has_no_handle_of_the_old_kind) {
  const CUdeviceptr address = reserve(3 * step);
  const auto first = create(step);
  const auto second = create(2 * step);
  EXPECT_OK(cuMemMap(address, step, 0, first, 0));
  EXPECT_OK(cuMemMap(address + step, 2 * step, 0, second, 0));
  EXPECT_OK(allow(address, 3 * step));
  CUdeviceptr base = 0;
  std::size_t bytes = 0;
  EXPECT_OK(cuMemGetAddressRange(&base, &bytes, address + 2 * step + 5));
  EXPECT_EQ(address + step, base);
  EXPECT_EQ(2 * step, bytes);
  CUipcMemHandle handle{};
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuIpcGetMemHandle(&handle, address));
  unsigned int capable = 1;
  EXPECT_OK(cuPointerGetAttribute(&capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, address));
  EXPECT_EQ(0U, capable);
  EXPECT_OK(cuMemUnmap(address, 3 * step));
  EXPECT_EQ(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange(&base, &bytes, address)) << "reserved, and nothing mapped";
  EXPECT_OK(cuMemRelease(first));
  EXPECT_OK(cuMemRelease(second));
  EXPECT_OK(cuMemAddressFree(address, 3 * step));
}

TEST_F(SimVirtualMemory, an_address_that_is_wished_for_is_given_where_it_is_free) {
  const CUdeviceptr address = reserve(4 * step);
  EXPECT_OK(cuMemAddressFree(address, 4 * step));
  CUdeviceptr wished = 0;
  EXPECT_OK(cuMemAddressReserve(&wished, step, 0, address + 2 * step, 0));
  EXPECT_EQ(address + 2 * step, wished);
  CUdeviceptr elsewhere = 0;
  EXPECT_OK(cuMemAddressReserve(&elsewhere, step, 0, wished, 0));
  EXPECT_NE(wished, elsewhere);
  EXPECT_OK(cuMemAddressFree(wished, step));
  EXPECT_OK(cuMemAddressFree(elsewhere, step));
}

TEST_F(SimVirtualMemory, a_card_is_full_when_its_physical_memory_is) {
  const auto most = create(card_bytes);
  CUmemGenericAllocationHandle none = 0;
  const auto here = on_device(0);
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemCreate(&none, step, &here, 0));
  EXPECT_OK(cuMemRelease(create(step, 1)));
  EXPECT_OK(cuMemRelease(most));
}

TEST_F(SimVirtualMemory, reservations_are_aligned_as_asked) {
  const CUdeviceptr address = reserve(step, 64 * MiB);
  EXPECT_EQ(0U, address % (64 * MiB));
  EXPECT_OK(cuMemAddressFree(address, step));
  std::size_t granularity = 0;
  const auto properties = on_device(0);
  EXPECT_OK(cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  EXPECT_EQ(step, granularity);
}

}  // namespace
}  // namespace cenote::sim_test
