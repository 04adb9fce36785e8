// Pools of CUDA 13: of managed memory and of the host, the default and the current one of each place.
#include <set>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

constexpr auto pinned = CU_MEM_ALLOCATION_TYPE_PINNED;
constexpr auto managed = CU_MEM_ALLOCATION_TYPE_MANAGED;

const CUmemLocation on_node = at(CU_MEM_LOCATION_TYPE_HOST_NUMA);
const CUmemLocation no_location = at(CU_MEM_LOCATION_TYPE_NONE);
const CUmemLocation on_node_of_thread = at(CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT);

class SimPoolPlace : public Sim {
 protected:
  static CUmemoryPool default_pool(CUmemAllocationType type, CUmemLocation location) {
    CUmemoryPool pool = nullptr;
    EXPECT_OK(cuMemGetDefaultMemPool(&pool, &location, type));
    return pool;
  }

  static CUmemoryPool current_pool(CUmemAllocationType type, CUmemLocation location) {
    CUmemoryPool pool = nullptr;
    EXPECT_OK(cuMemGetMemPool(&pool, &location, type));
    return pool;
  }

  static CUresult create(CUmemoryPool* pool, CUmemAllocationType type, CUmemLocation location,
                         CUmemAllocationHandleType handles = CU_MEM_HANDLE_TYPE_NONE, std::size_t max_bytes = 0) {
    CUmemPoolProps properties{};
    properties.allocType = type;
    properties.location = location;
    properties.handleTypes = handles;
    properties.maxSize = max_bytes;
    return cuMemPoolCreate(pool, &properties);
  }

  static CUmemoryPool make_pool(CUmemAllocationType type, CUmemLocation location) {
    CUmemoryPool pool = nullptr;
    EXPECT_OK(create(&pool, type, location));
    return pool;
  }

  static CUdeviceptr take(CUmemoryPool pool, std::size_t bytes, CUstream stream = nullptr) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAllocFromPoolAsync(&address, bytes, pool, stream));
    return address;
  }

  static cuuint64_t get(CUmemoryPool pool, CUmemPool_attribute attribute) {
    cuuint64_t value = 0;
    EXPECT_OK(cuMemPoolGetAttribute(pool, attribute, &value));
    return value;
  }

  template <class Value>
  static Value attribute(CUpointer_attribute which, CUdeviceptr address) {
    Value value{};
    EXPECT_OK(cuPointerGetAttribute(&value, which, address));
    return value;
  }

  static int ask(CUmem_range_attribute which, CUdeviceptr address, std::size_t bytes) {
    int answer = -9;
    EXPECT_OK(cuMemRangeGetAttribute(&answer, sizeof answer, which, address, bytes));
    return answer;
  }
};

TEST_F(SimPoolPlace, every_place_has_a_default_pool_of_its_own) {
  CUmemoryPool of_device = nullptr;
  EXPECT_OK(cuDeviceGetDefaultMemPool(&of_device, 0));
  EXPECT_EQ(of_device, default_pool(pinned, on_device(0)));
  const std::set<CUmemoryPool> pools{
      default_pool(pinned, on_device(0)),  default_pool(pinned, on_device(1)), default_pool(managed, on_device(0)),
      default_pool(managed, on_device(1)), default_pool(pinned, on_host),      default_pool(managed, on_host),
      default_pool(pinned, on_node),       default_pool(managed, on_node),     default_pool(managed, no_location)};
  EXPECT_EQ(9U, pools.size());
  EXPECT_EQ(default_pool(pinned, on_host), default_pool(pinned, at(CU_MEM_LOCATION_TYPE_HOST, 5))) << "no id there";
  for (const CUmemoryPool pool : pools) {
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPoolDestroy(pool));
  }
  EXPECT_EQ(0U, live().pools);
}

TEST_F(SimPoolPlace, a_place_that_has_no_pools_is_refused) {
  CUmemoryPool pool = nullptr;
  const auto asked = [&](CUmemAllocationType type, CUmemLocation location) {
    const CUresult answer = cuMemGetDefaultMemPool(&pool, &location, type);
    EXPECT_EQ(answer, cuMemGetMemPool(&pool, &location, type));
    return answer;
  };
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(pinned, no_location));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(managed, on_device(2)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(managed, at(CU_MEM_LOCATION_TYPE_HOST_NUMA, 1)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(CU_MEM_ALLOCATION_TYPE_INVALID, on_device(0)));
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, asked(managed, on_node_of_thread));
  CUmemLocation location = on_device(0);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemGetDefaultMemPool(&pool, nullptr, managed));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemGetDefaultMemPool(nullptr, &location, managed));
  EXPECT_EQ(nullptr, pool);
}

TEST_F(SimPoolPlace, memory_of_a_managed_pool_is_managed_and_seen_by_the_host) {
  const CUmemoryPool pool = default_pool(managed, on_device(1));
  const CUstream stream = make_stream();
  const CUdeviceptr memory = take(pool, KiB, stream);
  EXPECT_EQ(1U, attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_MANAGED, memory));
  EXPECT_EQ(memory, device_address(attribute<void*>(CU_POINTER_ATTRIBUTE_HOST_POINTER, memory)));
  EXPECT_EQ(memory, attribute<CUdeviceptr>(CU_POINTER_ATTRIBUTE_DEVICE_POINTER, memory));
  EXPECT_EQ(unsigned{CU_MEMORYTYPE_DEVICE}, attribute<unsigned>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory));
  EXPECT_EQ(1, attribute<int>(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory));
  EXPECT_EQ(pool, attribute<CUmemoryPool>(CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, memory));
  EXPECT_EQ(nullptr, attribute<CUcontext>(CU_POINTER_ATTRIBUTE_CONTEXT, memory));
  EXPECT_OK(cuMemsetD8Async(memory, 7, KiB, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(7, byte_at(memory + KiB - 1));
  EXPECT_EQ(KiB, live().managed_bytes);
  EXPECT_OK(cuMemFreeAsync(memory, stream));
}

TEST_F(SimPoolPlace, a_managed_pool_is_charged_to_no_card_and_may_be_larger_than_it) {
  const auto before = live().device_bytes;
  const CUmemoryPool pool = default_pool(managed, on_device(0));
  const CUstream stream = make_stream();
  const CUdeviceptr memory = take(pool, 3 * card_bytes, stream);
  EXPECT_EQ(before, live().device_bytes);
  EXPECT_EQ(3 * card_bytes, live().managed_bytes);
  EXPECT_EQ(3 * card_bytes, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(0U, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)) << "the threshold of a fresh pool is 0";
  EXPECT_EQ(0U, live().allocations);
  EXPECT_EQ(before, live().device_bytes);
}

TEST_F(SimPoolPlace, a_managed_pool_keeps_up_to_its_threshold_and_is_trimmed) {
  const CUmemoryPool pool = make_pool(managed, on_device(0));
  const CUstream stream = make_stream();
  cuuint64_t everything = UINT64_MAX;
  EXPECT_OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &everything));
  const CUdeviceptr first = take(pool, MiB, stream);
  EXPECT_EQ(MiB, get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT));
  EXPECT_OK(cuMemFreeAsync(first, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(2 * MiB, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  const CUdeviceptr again = take(pool, MiB, stream);
  EXPECT_EQ(first, again);
  EXPECT_OK(cuMemFree(again));
  EXPECT_OK(cuMemPoolTrimTo(pool, 0));
  EXPECT_EQ(0U, get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT));
  EXPECT_EQ(1U, live().pools);
  EXPECT_OK(cuMemPoolDestroy(pool));
  EXPECT_EQ(0U, live().pools);
}

TEST_F(SimPoolPlace, memory_of_a_managed_pool_is_preferred_where_the_pool_is) {
  constexpr int none = CU_DEVICE_INVALID;
  const struct {
    CUmemLocation location;
    int preferred;
    int type;
    int id;
  } rows[] = {{on_device(1), 1, CU_MEM_LOCATION_TYPE_DEVICE, 1},
              {no_location, none, CU_MEM_LOCATION_TYPE_NONE, none},
              {on_host, CU_DEVICE_CPU, CU_MEM_LOCATION_TYPE_HOST, 0},
              {on_node, CU_DEVICE_CPU, CU_MEM_LOCATION_TYPE_HOST_NUMA, 0},
              {on_node_of_thread, CU_DEVICE_CPU, CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT, 0}};
  for (const auto& row : rows) {
    const CUmemoryPool pool = make_pool(managed, row.location);
    const CUdeviceptr memory = take(pool, MiB);
    EXPECT_EQ(row.preferred, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, MiB));
    EXPECT_EQ(row.type, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE, memory, MiB));
    EXPECT_EQ(row.id, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID, memory, MiB));
    EXPECT_EQ(none, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, memory, MiB));
    EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemAdvise(memory, MiB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, on_device(0)));
    EXPECT_EQ(row.preferred, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, MiB));
    EXPECT_OK(cuMemFree(memory));
    EXPECT_OK(cuMemPoolDestroy(pool));
  }
}

TEST_F(SimPoolPlace, a_prefetch_of_pooled_memory_is_answered_and_stays_with_its_pages) {
  const CUmemoryPool pool = make_pool(managed, on_device(0));
  const CUstream stream = make_stream();
  const CUdeviceptr first = take(pool, 512, stream);
  const CUdeviceptr second = take(pool, 512, stream);
  ASSERT_EQ(first + 512, second);
  EXPECT_OK(cuMemPrefetchAsync(first, 512, on_device(1), 0, stream));
  EXPECT_EQ(1, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, first, 512));
  EXPECT_EQ(1, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, second, 512)) << "of the same page";
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(first, 1024, on_device(1), 0, stream));
  EXPECT_OK(cuMemFreeAsync(first, stream));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(first, 512, on_device(0), 0, stream));
  EXPECT_EQ(first, take(pool, 512, stream));
  EXPECT_EQ(1, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, first, 512));
  EXPECT_OK(cuMemFree(first));
  EXPECT_OK(cuMemFree(second));
  EXPECT_OK(cuMemPoolTrimTo(pool, 0));
  EXPECT_EQ(first, take(pool, 512, stream));
  EXPECT_EQ(CU_DEVICE_INVALID, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, first, 512)) << "a new segment";
  EXPECT_OK(cuMemFree(first));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPoolPlace, the_current_pool_of_a_place_can_be_replaced_by_one_of_that_place) {
  const CUmemoryPool initial = default_pool(managed, on_device(0));
  const CUmemoryPool pool = make_pool(managed, on_device(0));
  const auto set = [](CUmemAllocationType type, CUmemLocation location, CUmemoryPool to) {
    return cuMemSetMemPool(&location, type, to);
  };
  EXPECT_EQ(initial, current_pool(managed, on_device(0)));
  EXPECT_OK(set(managed, on_device(0), pool));
  EXPECT_EQ(pool, current_pool(managed, on_device(0)));
  EXPECT_EQ(initial, default_pool(managed, on_device(0)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(pinned, on_device(0), pool));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(managed, on_host, pool));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(managed, no_location, pool));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(managed, on_device(1), pool));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(managed, on_device(0), nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, set(managed, on_device(0), default_pool(pinned, on_device(0))));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemSetMemPool(nullptr, managed, pool));

  CUmemoryPool of_device = nullptr;
  EXPECT_OK(cuDeviceGetMemPool(&of_device, 0));
  EXPECT_EQ(default_pool(pinned, on_device(0)), of_device) << "another place";
  CUdeviceptr memory = 0;
  EXPECT_OK(cuMemAllocAsync(&memory, KiB, nullptr));
  EXPECT_EQ(0U, attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_MANAGED, memory));
  EXPECT_OK(cuMemFree(memory));

  EXPECT_OK(cuMemPoolDestroy(pool));
  EXPECT_EQ(initial, current_pool(managed, on_device(0)));
}

TEST_F(SimPoolPlace, the_pool_of_a_device_is_that_of_its_pinned_memory) {
  CUmemLocation location = on_device(0);
  const CUmemoryPool pool = make_pool(pinned, on_device(0));
  CUmemoryPool current = nullptr;
  EXPECT_OK(cuMemSetMemPool(&location, pinned, pool));
  EXPECT_OK(cuDeviceGetMemPool(&current, 0));
  EXPECT_EQ(pool, current);
  EXPECT_OK(cuDeviceSetMemPool(0, default_pool(pinned, on_device(0))));
  EXPECT_EQ(default_pool(pinned, on_device(0)), current_pool(pinned, on_device(0)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuDeviceSetMemPool(0, default_pool(pinned, on_host)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuDeviceSetMemPool(1, default_pool(managed, on_device(0))));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPoolPlace, what_a_pool_can_be_depends_on_its_place) {
  constexpr auto file = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemoryPool pool = nullptr;
  const auto made = [&](auto... properties) {
    const CUresult answer = create(&pool, properties...);
    if (answer == CUDA_SUCCESS) {
      EXPECT_OK(cuMemPoolDestroy(pool));
    }
    return answer;
  };
  const CUmemAllocationHandleType none = CU_MEM_HANDLE_TYPE_NONE;
  EXPECT_OK(made(pinned, on_host));
  EXPECT_OK(made(pinned, on_node));
  EXPECT_OK(made(pinned, on_node, file));
  EXPECT_OK(made(pinned, on_host, none, 4 * MiB));
  EXPECT_OK(made(managed, at(CU_MEM_LOCATION_TYPE_HOST, 5)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(pinned, no_location));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(pinned, on_node_of_thread));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(pinned, on_host, file));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(pinned, on_device(2)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(managed, on_device(2)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(managed, at(CU_MEM_LOCATION_TYPE_HOST_NUMA, 7)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(managed, on_device(0), file));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(managed, on_device(0), none, 4 * MiB));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, made(CU_MEM_ALLOCATION_TYPE_INVALID, on_device(0)));
}

TEST_F(SimPoolPlace, memory_of_a_host_pool_is_pinned_and_a_device_uses_it_once_it_may) {
  const auto before = free_bytes();
  const CUmemoryPool pool = make_pool(pinned, on_host);
  const CUstream stream = make_stream();
  const CUdeviceptr memory = take(pool, KiB, stream);
  EXPECT_EQ(before, free_bytes());
  EXPECT_EQ(KiB, live().pinned_bytes);
  EXPECT_EQ(unsigned{CU_MEMORYTYPE_HOST}, attribute<unsigned>(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory));
  EXPECT_EQ(0U, attribute<unsigned>(CU_POINTER_ATTRIBUTE_IS_MANAGED, memory));
  EXPECT_EQ(memory, device_address(attribute<void*>(CU_POINTER_ATTRIBUTE_HOST_POINTER, memory)));
  CUdeviceptr seen = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&seen, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, memory));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(memory, 1, KiB, stream));
  EXPECT_OK(cuMemcpyAsync(memory, make_memory(KiB), KiB, stream)) << "copies reach it all the same";

  CUmemAccessDesc access{};
  access.location = on_device(0);
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  EXPECT_OK(cuMemPoolSetAccess(pool, &access, 1));
  EXPECT_EQ(memory, attribute<CUdeviceptr>(CU_POINTER_ATTRIBUTE_DEVICE_POINTER, memory));
  EXPECT_OK(cuMemsetD8Async(memory, 1, KiB, stream));
  EXPECT_OK(cuMemFreeAsync(memory, stream));
  EXPECT_OK(cuMemPoolDestroy(pool));
}

TEST_F(SimPoolPlace, the_host_is_given_access_to_any_pool_but_a_cards) {
  CUmemAccessDesc access{};
  access.location = on_host;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  EXPECT_EQ(CUDA_ERROR_NOT_SUPPORTED, cuMemPoolSetAccess(default_pool(pinned, on_device(0)), &access, 1));
  EXPECT_OK(cuMemPoolSetAccess(default_pool(managed, on_device(0)), &access, 1));
  EXPECT_OK(cuMemPoolSetAccess(default_pool(pinned, on_host), &access, 1));
  access.location = on_device(2);
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuMemPoolSetAccess(default_pool(managed, on_device(0)), &access, 1));
}

TEST_F(SimPoolPlace, pools_are_found_in_a_capture_and_not_replaced) {
  CUmemLocation location = on_device(0);
  const CUmemoryPool pool = default_pool(managed, location);
  const CUstream stream = make_stream();
  CUgraph graph = nullptr;
  EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(pool, default_pool(managed, location));
  EXPECT_EQ(pool, current_pool(managed, location));
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemSetMemPool(&location, managed, pool));
  expect_violation("cuMemSetMemPool");
  EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
}

TEST_F(SimPoolPlace, no_context_is_needed_to_find_a_pool) {
  EXPECT_OK(cuCtxSetCurrent(nullptr));
  EXPECT_NE(nullptr, default_pool(managed, on_device(0)));
  EXPECT_NE(nullptr, current_pool(managed, on_device(0)));
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
}

}  // namespace
}  // namespace cenote::sim_test
