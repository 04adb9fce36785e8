// Memory and events for other processes, as far as one process can tell: tests/python/test_sharing.py has several.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimSharing : public Sim {
 protected:
  static CUmemGenericAllocationHandle create(CUmemAllocationHandleType types) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = on_device(0);
    properties.requestedHandleTypes = types;
    CUmemGenericAllocationHandle handle = 0;
    EXPECT_OK(cuMemCreate(&handle, step, &properties, 0));
    return handle;
  }

  static CUresult export_to(int& descriptor, CUmemGenericAllocationHandle handle) {
    return cuMemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  }

  static CUresult import_from(int descriptor, CUmemGenericAllocationHandle& handle) {
    return cuMemImportFromShareableHandle(&handle, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)),
                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  }

  /// Shows the memory at an address of its own, for the first card.
  static CUdeviceptr show(CUmemGenericAllocationHandle handle) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAddressReserve(&address, step, 0, 0, 0));
    EXPECT_OK(cuMemMap(address, step, 0, handle, 0));
    const CUmemAccessDesc access{on_device(0), CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    EXPECT_OK(cuMemSetAccess(address, step, &access, 1));
    return address;
  }

  static void hide(CUdeviceptr address) {
    EXPECT_OK(cuMemUnmap(address, step));
    EXPECT_OK(cuMemAddressFree(address, step));
  }
};

TEST_F(SimSharing, imported_memory_is_the_exported_one_and_outlives_it) {
  const auto made = create(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  const CUdeviceptr there = show(made);
  EXPECT_OK(cuMemsetD8Async(there, 7, step, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  int descriptor = -1;
  ASSERT_OK(export_to(descriptor, made));
  CUmemGenericAllocationHandle imported = 0;
  ASSERT_OK(import_from(descriptor, imported));
  close(descriptor);
  EXPECT_EQ(card_bytes - step, free_bytes()) << "it counts once, where it was made";
  const CUdeviceptr here = show(imported);
  EXPECT_OK(cuMemRelease(imported));
  hide(there);
  EXPECT_OK(cuMemRelease(made));
  unsigned char seen = 0;
  EXPECT_OK(cuMemcpyDtoH(&seen, here + step - 1, 1));
  EXPECT_EQ(7, seen);
  hide(here);
}

TEST_F(SimSharing, memory_that_is_exported_stays_where_it_is_mapped) {
  const auto made = create(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  const CUdeviceptr first = show(made);
  const CUdeviceptr second = show(made);
  EXPECT_OK(cuMemsetD8Async(first, 7, step, nullptr));
  EXPECT_OK(cuMemsetD8Async(first + 1, 8, 1, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  int descriptor = -1;
  ASSERT_OK(export_to(descriptor, made));
  unsigned char seen[4] = {};
  EXPECT_OK(cuMemcpyDtoH(seen, second, 3));
  EXPECT_OK(cuMemcpyDtoH(seen + 3, second + step - 1, 1));
  EXPECT_EQ(std::memcmp(seen, "\7\10\7\7", 4), 0);
  EXPECT_OK(cuMemsetD8(second + 2, 9, 1));
  EXPECT_OK(cuMemcpyDtoH(seen, first + 2, 1));
  EXPECT_EQ(9, seen[0]) << "two addresses are one memory still";
  const CUdeviceptr third = show(made);
  EXPECT_OK(cuMemcpyDtoH(seen, third + 2, 1));
  EXPECT_EQ(9, seen[0]);
  int again = -1;
  ASSERT_OK(export_to(again, made));
  CUmemGenericAllocationHandle imported = 0;
  ASSERT_OK(import_from(again, imported));
  const CUdeviceptr here = show(imported);
  EXPECT_OK(cuMemcpyDtoH(seen, here + 2, 1));
  EXPECT_EQ(9, seen[0]) << "the same file";
  close(descriptor);
  close(again);
  for (const CUdeviceptr each : {first, second, third, here}) hide(each);
  EXPECT_OK(cuMemRelease(imported));
  EXPECT_OK(cuMemRelease(made));
  EXPECT_EQ(card_bytes, free_bytes());
}

TEST_F(SimSharing, handle_of_mapped_memory_is_one_more_and_must_be_released) {
  const auto made = create(CU_MEM_HANDLE_TYPE_NONE);
  const CUdeviceptr address = show(made);
  CUmemGenericAllocationHandle retained = 0;
  EXPECT_OK(cuMemRetainAllocationHandle(&retained, reinterpret_cast<void*>(address + KiB)));
  hide(address);
  EXPECT_OK(cuMemRelease(made));
  EXPECT_EQ(card_bytes - step, free_bytes());
  EXPECT_OK(cuMemRelease(retained));
  EXPECT_EQ(card_bytes, free_bytes());
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemRelease(retained));
  expect_violation("does not exist, or was destroyed");
}

TEST_F(SimSharing, memory_that_was_not_made_for_it_is_not_exported_and_no_other_file_is_imported) {
  const auto made = create(CU_MEM_HANDLE_TYPE_NONE);
  int descriptor = -1;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, export_to(descriptor, made));
  EXPECT_OK(cuMemRelease(made));
  CUmemGenericAllocationHandle imported = 0;
  const int other = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, import_from(other, imported));
  close(other);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, import_from(other, imported));
}

TEST_F(SimSharing, mapping_of_more_than_the_memory_has_is_written_down) {
  const auto made = create(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  CUdeviceptr address = 0;
  EXPECT_OK(cuMemAddressReserve(&address, 2 * step, 0, 0, 0));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemMap(address, 2 * step, 0, made, 0));
  expect_violation("4194304 bytes are mapped of physical memory that has 2097152");
  EXPECT_OK(cuMemAddressFree(address, 2 * step));
  EXPECT_OK(cuMemRelease(made));
}

TEST_F(SimSharing, block_of_an_imported_pool_is_the_exported_one) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location = on_device(0);
  CUmemoryPool made = nullptr;
  ASSERT_OK(cuMemPoolCreate(&made, &properties));
  CUdeviceptr other = 0;
  CUdeviceptr there = 0;
  EXPECT_OK(cuMemAllocFromPoolAsync(&other, KiB, made, nullptr));
  EXPECT_OK(cuMemAllocFromPoolAsync(&there, 5 * KiB, made, nullptr));
  EXPECT_OK(cuMemsetD8Async(there, 7, 5 * KiB, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  int descriptor = -1;
  ASSERT_OK(cuMemPoolExportToShareableHandle(&descriptor, made, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  CUmemoryPool imported = nullptr;
  ASSERT_OK(cuMemPoolImportFromShareableHandle(&imported,
                                               reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)),
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  close(descriptor);
  CUmemPoolPtrExportData exported{};
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPoolExportPointer(&exported, there + KiB)) << "a part of a block";
  ASSERT_OK(cuMemPoolExportPointer(&exported, there));
  CUdeviceptr here = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPoolImportPointer(&here, made, &exported)) << "the owner's pool";
  ASSERT_OK(cuMemPoolImportPointer(&here, imported, &exported));
  EXPECT_NE(there, here);
  unsigned char seen = 0;
  EXPECT_OK(cuMemcpyDtoH(&seen, here + 5 * KiB - 1, 1));
  EXPECT_EQ(7, seen);
  EXPECT_OK(cuMemsetD8Async(here, 8, KiB, nullptr));
  EXPECT_OK(cuMemcpyDtoH(&seen, there + KiB - 1, 1));
  EXPECT_EQ(8, seen);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAllocFromPoolAsync(&other, KiB, imported, nullptr));
  EXPECT_OK(cuMemFreeAsync(here, nullptr));
  EXPECT_OK(cuMemFreeAsync(there, nullptr));
  EXPECT_OK(cuMemFreeAsync(other, nullptr));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_OK(cuMemPoolDestroy(imported));
  EXPECT_OK(cuMemPoolDestroy(made));
  EXPECT_EQ(card_bytes, free_bytes());
}

TEST_F(SimSharing, handle_of_an_event_is_for_other_processes_alone) {
  CUevent plain = nullptr;
  CUevent shared = nullptr;
  CUevent opened = nullptr;
  CUipcEventHandle handle{};
  EXPECT_OK(cuEventCreate(&plain, CU_EVENT_DISABLE_TIMING));
  EXPECT_OK(cuEventCreate(&shared, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS));
  EXPECT_EQ(CUDA_ERROR_INVALID_HANDLE, cuIpcGetEventHandle(&handle, plain));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuIpcOpenEventHandle(&opened, handle));
  EXPECT_OK(cuIpcGetEventHandle(&handle, shared));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuIpcOpenEventHandle(&opened, handle));
  EXPECT_OK(cuEventDestroy(plain));
  EXPECT_OK(cuEventDestroy(shared));
}

}  // namespace
}  // namespace cenote::sim_test
