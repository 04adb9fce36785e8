// One card's memory, used by another.
#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

class SimPeer : public Sim {
 protected:
  static CUmemoryPool pool_of(int ordinal) {
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = on_device(ordinal);
    CUmemoryPool pool = nullptr;
    EXPECT_OK(cuMemPoolCreate(&pool, &properties));
    return pool;
  }

  static CUdeviceptr take(CUmemoryPool pool, CUstream stream) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAllocFromPoolAsync(&address, KiB, pool, stream));
    return address;
  }

  static CUresult open(CUmemoryPool pool, int ordinal, CUmemAccess_flags flags) {
    const CUmemAccessDesc access{on_device(ordinal), flags};
    return cuMemPoolSetAccess(pool, &access, 1);
  }

  static CUmemAccess_flags access(CUmemoryPool pool, int ordinal) {
    CUmemLocation location = on_device(ordinal);
    CUmemAccess_flags flags{};
    EXPECT_OK(cuMemPoolGetAccess(&flags, pool, &location));
    return flags;
  }
};

TEST_F(SimPeer, a_card_reaches_others_and_not_itself) {
  int can = -1;
  EXPECT_OK(cuDeviceCanAccessPeer(&can, 0, 1));
  EXPECT_EQ(1, can);
  EXPECT_OK(cuDeviceCanAccessPeer(&can, 0, 0));
  EXPECT_EQ(0, can);
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuDeviceCanAccessPeer(&can, 0, 2));
}

TEST_F(SimPeer, work_of_another_card_touches_a_pool_only_where_it_is_open) {
  const CUmemoryPool pool = pool_of(0);
  const CUstream own = make_stream();
  const CUdeviceptr memory = take(pool, own);
  ASSERT_OK(cuCtxSetCurrent(contexts[1]));
  const CUstream other = make_stream();
  const CUdeviceptr others = make_memory();

  EXPECT_OK(cuMemcpyAsync(others, memory, KiB, own));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(others, memory, KiB, other));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(memory, others, KiB, other));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(memory, 1, KiB, other));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpy(others, memory, KiB)) << "on the stream of the current context";

  EXPECT_OK(open(pool, 1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
  EXPECT_OK(cuMemcpyAsync(others, memory, KiB, other));
  EXPECT_OK(cuMemcpyAsync(memory, others, KiB, other));
  EXPECT_OK(cuMemsetD8Async(memory, 1, KiB, other));

  EXPECT_OK(open(pool, 1, CU_MEM_ACCESS_FLAGS_PROT_NONE));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(others, memory, KiB, other));
  EXPECT_OK(cuCtxSynchronize());
  EXPECT_OK(cuMemFreeAsync(memory, own));
  EXPECT_OK(cuStreamSynchronize(own));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPeer, a_pool_says_who_may_use_it) {
  const CUmemoryPool pool = pool_of(0);
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_READWRITE, access(pool, 0));
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_NONE, access(pool, 1));
  EXPECT_OK(open(pool, 1, CU_MEM_ACCESS_FLAGS_PROT_READ));
  EXPECT_EQ(CU_MEM_ACCESS_FLAGS_PROT_READ, access(pool, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, open(pool, 2, CU_MEM_ACCESS_FLAGS_PROT_READ));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPeer, plain_memory_is_copied_without_being_opened) {
  const CUdeviceptr first = make_memory();
  ASSERT_OK(cuCtxSetCurrent(contexts[1]));
  EXPECT_OK(cuMemcpyAsync(make_memory(), first, KiB, make_stream()));
}

TEST_F(SimPeer, a_context_is_opened_to_another_once_and_its_pools_are_not) {
  const CUmemoryPool pool = pool_of(1);
  ASSERT_OK(cuCtxSetCurrent(contexts[1]));
  const CUstream stream = make_stream();
  const CUdeviceptr memory = take(pool, stream);
  ASSERT_OK(cuCtxSetCurrent(contexts[0]));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuCtxEnablePeerAccess(contexts[0], 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuCtxEnablePeerAccess(contexts[1], 1));
  EXPECT_EQ(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, cuCtxDisablePeerAccess(contexts[1]));
  EXPECT_OK(cuCtxEnablePeerAccess(contexts[1], 0));
  EXPECT_EQ(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, cuCtxEnablePeerAccess(contexts[1], 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemcpyAsync(make_memory(), memory, KiB, make_stream()));
  EXPECT_OK(cuCtxDisablePeerAccess(contexts[1]));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

}  // namespace
}  // namespace cenote::sim_test
