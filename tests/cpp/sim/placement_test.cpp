// Where managed memory is wanted: prefetches, advice, and what cuMemRangeGetAttribute answers about them.
#include <algorithm>
#include <array>
#include <random>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

constexpr std::size_t page = 4096;
constexpr int host = CU_DEVICE_CPU;
constexpr int nowhere = CU_DEVICE_INVALID;

class SimPlacement : public Sim {
 protected:
  static CUdeviceptr make_managed(std::size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAllocManaged(&address, bytes, CU_MEM_ATTACH_GLOBAL));
    return address;
  }

  static int ask(CUmem_range_attribute which, CUdeviceptr address, std::size_t bytes) {
    int answer = -9;
    EXPECT_OK(cuMemRangeGetAttribute(&answer, sizeof answer, which, address, bytes));
    return answer;
  }

  static int prefetched(CUdeviceptr address, std::size_t bytes) {
    return ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, address, bytes);
  }

  static int preferred(CUdeviceptr address, std::size_t bytes) {
    return ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, address, bytes);
  }

  static std::array<int, 3> accessed_by(CUdeviceptr address, std::size_t bytes) {
    std::array<int, 3> ordinals{};
    EXPECT_OK(
        cuMemRangeGetAttribute(ordinals.data(), sizeof ordinals, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, address, bytes));
    return ordinals;
  }
};

TEST_F(SimPlacement, fresh_memory_is_wanted_nowhere) {
  const CUdeviceptr memory = make_managed(4 * page);
  EXPECT_EQ(nowhere, preferred(memory, 4 * page));
  EXPECT_EQ(nowhere, prefetched(memory, 4 * page));
  EXPECT_EQ(CU_MEM_LOCATION_TYPE_NONE, ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE, memory, page));
  EXPECT_EQ(CU_MEM_LOCATION_TYPE_NONE, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE, memory, page));
  EXPECT_EQ(0, ask(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 4 * page));
  EXPECT_EQ((std::array{nowhere, nowhere, nowhere}), accessed_by(memory, page));
}

TEST_F(SimPlacement, a_prefetch_is_for_whole_pages_and_a_range_that_disagrees_is_nowhere) {
  const CUdeviceptr memory = make_managed(4 * page);
  EXPECT_OK(cuMemPrefetchAsync(memory + page + 5, 1, on_device(1), 0, nullptr));
  EXPECT_EQ(1, prefetched(memory + page, page));
  EXPECT_EQ(1, prefetched(memory + 2 * page - 1, 1));
  EXPECT_EQ(nowhere, prefetched(memory + page - 1, 1));
  EXPECT_EQ(nowhere, prefetched(memory + 2 * page, 1));
  EXPECT_EQ(nowhere, prefetched(memory + page, page + 1));
  EXPECT_OK(cuMemPrefetchAsync(memory, 4 * page, on_device(0), 0, nullptr));
  EXPECT_EQ(0, prefetched(memory, 4 * page));
  EXPECT_OK(cuMemPrefetchAsync(memory + page - 1, 2, on_host, 0, nullptr));
  EXPECT_EQ(host, prefetched(memory, 2 * page));
  EXPECT_EQ(nowhere, prefetched(memory, 4 * page));
  EXPECT_EQ(0, prefetched(memory + 2 * page, 2 * page));
}

TEST_F(SimPlacement, a_prefetch_is_answered_before_it_has_run_and_takes_its_place_in_the_stream) {
  const CUdeviceptr memory = make_managed(page);
  const CUstream stream = make_stream();
  EXPECT_OK(cuMemPrefetchAsync(memory, page, on_device(0), 0, stream));
  EXPECT_EQ(1U, cenote_sim_pending());
  EXPECT_EQ(0, prefetched(memory, page));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_EQ(0U, cenote_sim_pending());
}

TEST_F(SimPlacement, the_host_and_its_nodes_are_told_apart_by_type_and_id) {
  const CUdeviceptr memory = make_managed(page);
  const auto last = [&] {
    return std::array{prefetched(memory, page), ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE, memory, page),
                      ask(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID, memory, page)};
  };
  EXPECT_OK(cuMemPrefetchAsync(memory, page, on_device(1), 0, nullptr));
  EXPECT_EQ((std::array<int, 3>{1, CU_MEM_LOCATION_TYPE_DEVICE, 1}), last());
  EXPECT_OK(cuMemPrefetchAsync(memory, page, on_host, 0, nullptr));
  EXPECT_EQ((std::array<int, 3>{host, CU_MEM_LOCATION_TYPE_HOST, host}), last());
  EXPECT_OK(cuMemPrefetchAsync(memory, page, at(CU_MEM_LOCATION_TYPE_HOST_NUMA), 0, nullptr));
  EXPECT_EQ((std::array<int, 3>{host, CU_MEM_LOCATION_TYPE_HOST_NUMA, 0}), last());
  EXPECT_OK(cuMemPrefetchAsync(memory, page, at(CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT, 7), 0, nullptr));
  EXPECT_EQ((std::array<int, 3>{host, CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT, 0}), last());
  EXPECT_OK(cuMemAdvise(memory, page, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, at(CU_MEM_LOCATION_TYPE_HOST_NUMA)));
  EXPECT_EQ(host, preferred(memory, page));
  EXPECT_EQ(CU_MEM_LOCATION_TYPE_HOST, ask(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE, memory, page));
}

TEST_F(SimPlacement, the_older_abis_name_a_device_by_its_ordinal) {
  using Prefetch = CUresult (*)(CUdeviceptr, std::size_t, CUdevice, CUstream);
  using Advise = CUresult (*)(CUdeviceptr, std::size_t, CUmem_advise, CUdevice);
  void* entry = nullptr;
  ASSERT_OK(cuGetProcAddress("cuMemPrefetchAsync", &entry, 8000, 0, nullptr));
  const auto prefetch = reinterpret_cast<Prefetch>(entry);
  ASSERT_OK(cuGetProcAddress("cuMemAdvise", &entry, 8000, 0, nullptr));
  const auto advise = reinterpret_cast<Advise>(entry);
  const CUdeviceptr memory = make_managed(page);
  EXPECT_OK(prefetch(memory, page, 1, nullptr));
  EXPECT_EQ(1, prefetched(memory, page));
  EXPECT_OK(prefetch(memory, page, host, nullptr));
  EXPECT_EQ(host, prefetched(memory, page));
  EXPECT_OK(advise(memory, page, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 1));
  EXPECT_EQ(1, preferred(memory, page));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, prefetch(memory, page, 2, nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, prefetch(memory, page, nowhere, nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, advise(memory, page, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 2));
}

TEST_F(SimPlacement, advice_holds_until_it_is_taken_back) {
  const CUdeviceptr memory = make_managed(4 * page);
  EXPECT_OK(cuMemAdvise(memory, 4 * page, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, on_host));
  EXPECT_EQ(host, preferred(memory, 4 * page));
  EXPECT_OK(cuMemAdvise(memory, page, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, on_device(0)));
  EXPECT_EQ(nowhere, preferred(memory, page));
  EXPECT_EQ(nowhere, preferred(memory, 4 * page));
  EXPECT_EQ(host, preferred(memory + page, 3 * page));

  EXPECT_OK(cuMemAdvise(memory, 2 * page, CU_MEM_ADVISE_SET_READ_MOSTLY, on_device(0)));
  EXPECT_EQ(1, ask(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 2 * page));
  EXPECT_EQ(0, ask(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 2 * page + 1));
  EXPECT_OK(cuMemAdvise(memory, page, CU_MEM_ADVISE_UNSET_READ_MOSTLY, on_device(0)));
  EXPECT_EQ(0, ask(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 2 * page));

  EXPECT_OK(cuMemAdvise(memory, 2 * page, CU_MEM_ADVISE_SET_ACCESSED_BY, on_device(1)));
  EXPECT_OK(cuMemAdvise(memory, page, CU_MEM_ADVISE_SET_ACCESSED_BY, on_host));
  EXPECT_EQ((std::array{1, host, nowhere}), accessed_by(memory, page));
  EXPECT_EQ((std::array{1, nowhere, nowhere}), accessed_by(memory, 2 * page));
  EXPECT_EQ((std::array{nowhere, nowhere, nowhere}), accessed_by(memory, 3 * page));
  EXPECT_OK(cuMemAdvise(memory, page, CU_MEM_ADVISE_UNSET_ACCESSED_BY, on_device(1)));
  EXPECT_EQ((std::array{host, nowhere, nowhere}), accessed_by(memory, page));
  EXPECT_EQ(nowhere, prefetched(memory, page)) << "advice is no prefetch";
}

TEST_F(SimPlacement, any_history_of_ranges_agrees_with_an_array_of_pages) {
  constexpr std::size_t pages = 40;
  constexpr unsigned seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const CUdeviceptr memory = make_managed(pages * page);
  std::array<int, pages> model;
  model.fill(nowhere);
  const auto pick = [&](std::size_t below) { return std::uniform_int_distribution<std::size_t>(0, below - 1)(random); };
  for (int round = 0; round < 2000; ++round) {
    const std::size_t start = pick(pages * page);
    const std::size_t bytes = 1 + pick(std::min(pages * page - start, 6 * page));
    const std::size_t first = start / page;
    const std::size_t last = (start + bytes - 1) / page;
    if (round % 2 == 0) {
      const int target = static_cast<int>(pick(3)) - 1;
      EXPECT_OK(cuMemPrefetchAsync(memory + start, bytes, target == host ? on_host : on_device(target), 0, nullptr));
      std::fill(model.begin() + first, model.begin() + last + 1, target);
    } else {
      const bool agree =
          std::all_of(model.begin() + first, model.begin() + last + 1, [&](int each) { return each == model[first]; });
      ASSERT_EQ(agree ? model[first] : nowhere, prefetched(memory + start, bytes)) << "round " << round;
    }
  }
}

TEST_F(SimPlacement, an_allocation_has_its_pages_for_itself_and_they_are_forgotten_with_it) {
  const CUdeviceptr first = make_managed(1);
  const CUdeviceptr second = make_managed(1);
  EXPECT_OK(cuMemPrefetchAsync(first, 1, on_device(0), 0, nullptr));
  EXPECT_OK(cuMemAdvise(first, 1, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, on_device(1)));
  EXPECT_EQ(nowhere, prefetched(second, 1));
  EXPECT_EQ(nowhere, preferred(second, 1));
  EXPECT_OK(cuMemFree(first));
  EXPECT_EQ(first, make_managed(1));
  EXPECT_EQ(nowhere, prefetched(first, 1));
  EXPECT_EQ(nowhere, preferred(first, 1));
}

TEST_F(SimPlacement, only_a_range_within_one_managed_allocation_is_placed) {
  const CUdeviceptr memory = make_managed(page);
  const CUdeviceptr next = make_managed(page);
  ASSERT_EQ(memory + page, next);
  int local = 0;
  const auto refused = [](CUdeviceptr address, std::size_t bytes) {
    int answer = 0;
    return cuMemPrefetchAsync(address, bytes, on_device(0), 0, nullptr) == CUDA_ERROR_INVALID_VALUE &&
           cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_READ_MOSTLY, on_device(0)) == CUDA_ERROR_INVALID_VALUE &&
           cuMemRangeGetAttribute(&answer, sizeof answer, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, address,
                                  bytes) == CUDA_ERROR_INVALID_VALUE;
  };
  EXPECT_FALSE(refused(memory, page));
  EXPECT_TRUE(refused(memory, 0));
  EXPECT_TRUE(refused(memory, page + 1)) << "across two allocations";
  EXPECT_TRUE(refused(next, page + 1)) << "past the end";
  EXPECT_TRUE(refused(next, SIZE_MAX));
  EXPECT_TRUE(refused(make_memory(page), page));
  EXPECT_TRUE(refused(device_address(make_pinned(page)), page));
  EXPECT_TRUE(refused(reinterpret_cast<CUdeviceptr>(&local), sizeof local));
  EXPECT_TRUE(refused(0, page));
}

TEST_F(SimPlacement, what_makes_no_sense_is_refused_and_changes_nothing) {
  const CUdeviceptr memory = make_managed(page);
  EXPECT_OK(cuMemPrefetchAsync(memory, page, on_device(0), 0, nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuMemPrefetchAsync(memory, page, on_device(2), 0, nullptr));
  for (const auto& location :
       {at(CU_MEM_LOCATION_TYPE_NONE), at(CU_MEM_LOCATION_TYPE_HOST_NUMA, 9), at(static_cast<CUmemLocationType>(5))}) {
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(memory, page, location, 0, nullptr));
    EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAdvise(memory, page, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, location));
  }
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(memory, page, on_device(1), 1, nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAdvise(memory, page, static_cast<CUmem_advise>(0), on_device(0)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemAdvise(memory, page, static_cast<CUmem_advise>(9), on_device(0)));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE,
            cuMemAdvise(memory, page, CU_MEM_ADVISE_SET_ACCESSED_BY, at(CU_MEM_LOCATION_TYPE_HOST_NUMA)));
  EXPECT_EQ(0, prefetched(memory, page));
  EXPECT_EQ(nowhere, preferred(memory, page));

  std::array<int, 2> answers{-9, -9};
  const auto asked = [&](int which, std::size_t bytes) {
    return cuMemRangeGetAttribute(answers.data(), bytes, static_cast<CUmem_range_attribute>(which), memory, page);
  };
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(0, 4));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(9, 4));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, 8));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, 6));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, asked(CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE,
            cuMemRangeGetAttribute(nullptr, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, page));
  EXPECT_EQ((std::array{-9, -9}), answers);
  EXPECT_OK(cuCtxSetCurrent(nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, 4));
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
}

TEST_F(SimPlacement, a_prefetch_cannot_be_captured_in_any_mode_and_a_question_may_be_asked) {
  const CUdeviceptr memory = make_managed(page);
  for (const auto mode :
       {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_RELAXED}) {
    const CUstream stream = make_stream();
    CUgraph graph = nullptr;
    EXPECT_OK(cuStreamBeginCapture(stream, mode));
    EXPECT_EQ(nowhere, prefetched(memory, page));
    EXPECT_OK(cuStreamEndCapture(stream, &graph)) << "a question does not end a capture";
    EXPECT_OK(cuGraphDestroy(graph));
    EXPECT_OK(cuStreamBeginCapture(stream, mode));
    EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemPrefetchAsync(memory, page, on_device(0), 0, stream));
    expect_violation("cuMemPrefetchAsync");
    EXPECT_EQ(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    EXPECT_EQ(nowhere, prefetched(memory, page));
  }
}

}  // namespace
}  // namespace cenote::sim_test
