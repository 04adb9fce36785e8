// The simulated driver as a whole: how it is configured, found and entered, its contexts, and its control interface.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "support/sim_fixture.hpp"

namespace cenote::sim_test {
namespace {

// What is read once, at cuInit, is tested in a process of its own: a "threadsafe" death test runs the binary afresh.
class SimSettings : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  /// Ends the process with cuInit's answer.
  static void init_and_exit(const char* settings) {
    setenv("CENOTE_SIM", settings, 1);
    std::_Exit(cuInit(0));
  }

  /// Ends the process with 0 where `holds()` is true after cuInit.
  template <class Holds>
  static void check_and_exit(const char* settings, Holds holds) {
    setenv("CENOTE_SIM", settings, 1);
    std::_Exit(cuInit(0) == CUDA_SUCCESS && holds() ? 0 : 1);
  }
};

using ::testing::ExitedWithCode;

TEST_F(SimSettings, a_malformed_setting_is_refused_with_one_line_that_says_what_is_known) {
  EXPECT_EXIT(init_and_exit("devices=two"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE),
              "^CENOTE_SIM: devices=two: an integer from 0 to 64 is expected\n$");
  EXPECT_EXIT(init_and_exit("memory=80"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE), "a size such as 80GiB is expected");
  EXPECT_EXIT(init_and_exit("memory=-1GiB"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE), "a size such as 80GiB");
  EXPECT_EXIT(init_and_exit("memory=nanGiB"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE), "a size such as 80GiB");
  EXPECT_EXIT(init_and_exit("cards=2"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE),
              "'cards=2' is not known; known are devices=N, memory=SIZE, driver=VERSION, name=TEXT, pageable=0 or 1");
  EXPECT_EXIT(init_and_exit("pageable=2"), ExitedWithCode(CUDA_ERROR_INVALID_VALUE),
              "^CENOTE_SIM: pageable=2: an integer from 0 to 1 is expected\n$");
}

TEST_F(SimSettings, no_devices_means_no_device) {
  EXPECT_EXIT(init_and_exit("devices=0"), ExitedWithCode(CUDA_ERROR_NO_DEVICE), "");
}

TEST_F(SimSettings, every_setting_is_seen_by_the_program) {
  EXPECT_EXIT(check_and_exit(" devices = 3 , memory = 1.5 GiB, name=my card, driver=12040",
                             [] {
                               int count = 0;
                               int version = 0;
                               std::size_t bytes = 0;
                               char name[64] = "";
                               cuDeviceGetCount(&count);
                               cuDriverGetVersion(&version);
                               cuDeviceTotalMem(&bytes, 2);
                               cuDeviceGetName(name, sizeof name, 2);
                               return count == 3 && version == 12040 && bytes == 1536 * MiB &&
                                      name == std::string("my card");
                             }),
              ExitedWithCode(0), "");
}

TEST_F(SimSettings, devices_use_pageable_memory_only_where_the_setting_says_so) {
  const auto answers = [](const char* settings, int wanted) {
    EXPECT_EXIT(check_and_exit(settings,
                               [wanted] {
                                 int value = -1;
                                 cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0);
                                 return value == wanted;
                               }),
                ExitedWithCode(0), "");
  };
  answers("", 0);
  answers("pageable=0", 0);
  answers("pageable = 1, devices=2", 1);
}

TEST_F(SimSettings, a_driver_before_CUDA_13_has_pools_of_cards_only) {
  EXPECT_EXIT(
      check_and_exit("driver=12090",
                     [] {
                       CUmemPoolProps properties{};
                       properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
                       properties.allocType = CU_MEM_ALLOCATION_TYPE_MANAGED;
                       CUmemoryPool pool = nullptr;
                       int supported = -1;
                       bool found = false;
                       for (const char* name : {"cuMemGetDefaultMemPool", "cuMemGetMemPool", "cuMemSetMemPool"}) {
                         void* entry = nullptr;
                         auto status = CU_GET_PROC_ADDRESS_SUCCESS;
                         cuGetProcAddress(name, &entry, 12090, 0, &status);
                         found = found || entry != nullptr || status != CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
                       }
                       const bool managed = cuMemPoolCreate(&pool, &properties) != CUDA_ERROR_INVALID_VALUE;
                       properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
                       const bool pinned = cuMemPoolCreate(&pool, &properties) == CUDA_SUCCESS;
                       properties.location.type = CU_MEM_LOCATION_TYPE_HOST;
                       const bool host = cuMemPoolCreate(&pool, &properties) != CUDA_ERROR_NOT_SUPPORTED;
                       cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED, 0);
                       return !found && !managed && pinned && !host && supported == 0;
                     }),
      ExitedWithCode(0), "");
}

TEST_F(SimSettings, the_default_is_one_card_of_80_GiB) {
  EXPECT_EXIT(check_and_exit("",
                             [] {
                               int count = 0;
                               std::size_t bytes = 0;
                               cuDeviceGetCount(&count);
                               cuDeviceTotalMem(&bytes, 0);
                               return count == 1 && bytes == 80 * 1024 * MiB;
                             }),
              ExitedWithCode(0), "");
}

TEST_F(SimSettings, an_old_driver_does_not_know_newer_entry_points) {
  EXPECT_EXIT(check_and_exit("driver=12040",
                             [] {
                               void* entry = nullptr;
                               auto status = CU_GET_PROC_ADDRESS_SUCCESS;
                               return cuGetProcAddress("cuCtxRecordEvent", &entry, 12040, 0, &status) == CUDA_SUCCESS &&
                                      entry == nullptr && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND &&
                                      cuGetProcAddress("cuCtxRecordEvent", &entry, 12050, 0, &status) ==
                                          CUDA_ERROR_INVALID_VALUE;
                             }),
              ExitedWithCode(0), "");
}

TEST_F(SimSettings, nothing_but_the_version_and_names_is_answered_before_init) {
  EXPECT_EXIT(
      {
        int value = 0;
        const bool held = cuDeviceGetCount(&value) == CUDA_ERROR_NOT_INITIALIZED &&
                          cuDriverGetVersion(&value) == CUDA_SUCCESS && cenote_sim_initialized() == 0 &&
                          cuInit(1) == CUDA_ERROR_INVALID_VALUE;
        std::_Exit(held ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

TEST_F(SimSettings, the_driver_still_answers_while_the_process_exits) {
  EXPECT_EXIT(
      {
        cuInit(0);
        std::atexit([] {
          int count = 0;
          CUdeviceptr memory = 0;
          CUcontext context = nullptr;
          cuDevicePrimaryCtxRetain(&context, 0);
          cuCtxPushCurrent(context);
          std::_Exit(cuDeviceGetCount(&count) == CUDA_SUCCESS && cuMemAlloc(&memory, 1) == CUDA_SUCCESS ? 0 : 1);
        });
        std::exit(2);
      },
      ExitedWithCode(0), "");
}

class SimDriver : public Sim {};

TEST_F(SimDriver, an_entry_point_is_found_by_base_name_and_version) {
  void* entry = nullptr;
  auto status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  EXPECT_OK(cuGetProcAddress("cuMemAlloc", &entry, 3020, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &status));
  EXPECT_EQ(CU_GET_PROC_ADDRESS_SUCCESS, status);
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"), entry);
}

TEST_F(SimDriver, the_version_chooses_among_the_abis_of_a_name) {
  const auto find = [](int version) {
    void* entry = nullptr;
    EXPECT_OK(cuGetProcAddress("cuStreamGetCaptureInfo", &entry, version, 0, nullptr));
    return entry;
  };
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "cuStreamGetCaptureInfo"), find(11000));
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "cuStreamGetCaptureInfo_v2"), find(11030));
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "cuStreamGetCaptureInfo_v2"), find(12020));
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "cuStreamGetCaptureInfo_v3"), find(12030));
}

TEST_F(SimDriver, what_is_not_found_is_null_and_the_status_says_why) {
  void* entry = this;
  auto status = CU_GET_PROC_ADDRESS_SUCCESS;
  EXPECT_OK(cuGetProcAddress("cuMemAlloc", &entry, 1000, 0, &status));
  EXPECT_EQ(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, status);
  EXPECT_EQ(nullptr, entry);
  for (const char* name : {"cuMemAlloc_v2", "cuNoSuchThing", ""}) {
    EXPECT_OK(cuGetProcAddress(name, &entry, 13000, 0, &status));
    EXPECT_EQ(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, status) << name;
    EXPECT_EQ(nullptr, entry);
  }
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress("cuMemAlloc", &entry, 99000, 0, &status));
}

TEST_F(SimDriver, errors_have_names_and_texts) {
  const char* text = nullptr;
  EXPECT_OK(cuGetErrorName(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, &text));
  EXPECT_STREQ("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", text);
  EXPECT_OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
  EXPECT_STREQ("out of memory", text);
  EXPECT_OK(cuGetErrorString(CUDA_SUCCESS, &text));
  EXPECT_STREQ("no error", text);
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuGetErrorName(static_cast<CUresult>(998), &text));
  EXPECT_EQ(nullptr, text);
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cenote_sim_error("CUDA_ERROR_OUT_OF_MEMORY"));
  EXPECT_EQ(-1, cenote_sim_error("CUDA_ERROR_OF_TASTE"));
}

TEST_F(SimDriver, a_device_is_a_card_of_its_own_in_a_machine_of_one_node) {
  const auto value = [](int attribute) {
    int answer = -9;
    EXPECT_OK(cuDeviceGetAttribute(&answer, static_cast<CUdevice_attribute>(attribute), 0));
    return answer;
  };
  EXPECT_EQ(0, value(CU_DEVICE_ATTRIBUTE_INTEGRATED));
  EXPECT_EQ(0, value(CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID));
  EXPECT_EQ(-1, value(CU_DEVICE_ATTRIBUTE_NUMA_ID));
  EXPECT_EQ(1, value(CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED));
  EXPECT_EQ(1, value(CU_DEVICE_ATTRIBUTE_HOST_NUMA_MEMORY_POOLS_SUPPORTED));
  int answer = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&answer, static_cast<CUdevice_attribute>(0), 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&answer, CU_DEVICE_ATTRIBUTE_MAX, 0));
}

TEST_F(SimDriver, devices_beyond_the_last_are_invalid) {
  CUdevice device = 0;
  int value = 0;
  EXPECT_OK(cuDeviceGet(&device, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, 2));
  EXPECT_EQ(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, -1));
  EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device));
  EXPECT_EQ(1, value);
}

TEST_F(SimDriver, the_current_context_is_a_stack_of_each_thread) {
  CUcontext current = nullptr;
  CUdevice device = -1;
  EXPECT_OK(cuCtxPushCurrent(contexts[1]));
  EXPECT_OK(cuCtxGetDevice(&device));
  EXPECT_EQ(1, device);
  std::thread([] {
    CUcontext none = nullptr;
    EXPECT_OK(cuCtxGetCurrent(&none));
    EXPECT_EQ(nullptr, none);
  }).join();
  EXPECT_OK(cuCtxPopCurrent(&current));
  EXPECT_EQ(contexts[1], current);
  EXPECT_OK(cuCtxGetCurrent(&current));
  EXPECT_EQ(contexts[0], current);
  EXPECT_OK(cuCtxSetCurrent(nullptr));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent(&current));
}

TEST_F(SimDriver, without_a_context_nothing_is_made_but_what_is_there_can_be_used) {
  const CUdeviceptr memory = make_memory();
  const CUstream stream = make_stream();
  const CUevent event = make_event();
  EXPECT_OK(cuCtxSetCurrent(nullptr));
  CUdeviceptr address = 0;
  CUstream new_stream = nullptr;
  std::size_t bytes = 0;
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&address, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuStreamCreate(&new_stream, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuMemGetInfo(&bytes, &bytes));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuStreamSynchronize(nullptr));
  EXPECT_OK(cuMemsetD8Async(memory, 1, 1, stream));
  EXPECT_OK(cuEventRecord(event, stream));
  EXPECT_OK(cuStreamSynchronize(stream));
  EXPECT_OK(cuMemFree(memory));
  EXPECT_OK(cuCtxSetCurrent(contexts[0]));
}

TEST_F(SimDriver, the_last_release_of_a_context_ends_everything_in_it) {
  const CUdeviceptr memory = make_memory(MiB);
  make_stream();
  make_event();
  CUcontext again = nullptr;
  EXPECT_OK(cuDevicePrimaryCtxRetain(&again, 0));
  EXPECT_EQ(contexts[0], again);
  EXPECT_OK(cuDevicePrimaryCtxRelease(0));
  EXPECT_EQ(1U, live().streams);
  EXPECT_OK(cuDevicePrimaryCtxRelease(0));
  EXPECT_EQ(0U, live().streams + live().events + live().allocations + live().device_bytes);
  EXPECT_EQ(1U, live().contexts);
  CUdeviceptr address = 0;
  EXPECT_EQ(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuMemAlloc(&address, 1));
  EXPECT_EQ(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease(0));
  EXPECT_OK(cuDevicePrimaryCtxRetain(&again, 0));
  EXPECT_EQ(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory));
  expect_violation("cuMemFree");
}

TEST_F(SimDriver, calls_are_counted_by_base_name) {
  make_memory();
  make_memory();
  EXPECT_EQ(2, cenote_sim_calls("cuMemAlloc"));
  EXPECT_EQ(0, cenote_sim_calls("cuMemFree"));
  EXPECT_EQ(2, cenote_sim_calls(nullptr));
  EXPECT_EQ(-1, cenote_sim_calls("cuMemAlloc_v2"));
  cenote_sim_reset_calls();
  EXPECT_EQ(0, cenote_sim_calls(nullptr));
  std::vector<std::string> names;
  for (int i = 0; cenote_sim_name(i) != nullptr; ++i) {
    names.emplace_back(cenote_sim_name(i));
  }
  EXPECT_EQ(1, std::count(names.begin(), names.end(), "cuStreamGetCaptureInfo"));
  EXPECT_GT(names.size(), 60U);
}

TEST_F(SimDriver, the_nth_call_fails_once_and_has_no_effect) {
  CUdeviceptr address = 7;
  const auto before = free_bytes();
  EXPECT_EQ(0, cenote_sim_fail("cuMemAlloc", 2, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_EQ(0, cenote_sim_fail("cuMemFree", 1, CUDA_ERROR_ILLEGAL_ADDRESS));
  const CUdeviceptr first = make_memory(512);
  EXPECT_EQ(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&address, 512));
  EXPECT_EQ(7U, address);
  EXPECT_EQ(before - 512, free_bytes());
  EXPECT_EQ(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemFree(first));
  EXPECT_OK(cuMemFree(first));
  EXPECT_OK(cuMemFree(make_memory()));
  EXPECT_EQ(before, free_bytes());
}

TEST_F(SimDriver, an_armed_failure_can_be_cancelled_and_a_wrong_one_is_refused) {
  EXPECT_EQ(0, cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_EQ(0, cenote_sim_fail("cuMemAlloc", 0, 0));
  make_memory();
  EXPECT_EQ(-1, cenote_sim_fail("cuNoSuchThing", 1, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_EQ(-1, cenote_sim_fail("cuMemAlloc", -1, CUDA_ERROR_OUT_OF_MEMORY));
  EXPECT_EQ(-1, cenote_sim_fail("cuMemAlloc", 1, CUDA_SUCCESS));
}

TEST_F(SimDriver, something_happens_once_before_a_call) {
  struct Seen {
    long long calls = 0;
    CUdeviceptr address = 0;
    int times = 0;
  } seen;
  const auto meanwhile = [](void* context) {
    auto& its = *static_cast<Seen*>(context);
    its.calls = cenote_sim_calls("cuMemFree");
    its.address = make_memory(512);
    ++its.times;
  };
  const CUdeviceptr first = make_memory();
  EXPECT_EQ(0, cenote_sim_before("cuMemFree", meanwhile, &seen));
  EXPECT_OK(cuMemFree(first));
  EXPECT_EQ(1, seen.times);
  EXPECT_EQ(0, seen.calls);
  EXPECT_EQ(1, cenote_sim_calls("cuMemFree"));
  EXPECT_OK(cuMemFree(seen.address));
  EXPECT_EQ(1, seen.times);
  EXPECT_EQ(0, cenote_sim_before("cuMemFree", meanwhile, &seen));
  EXPECT_EQ(0, cenote_sim_before("cuMemFree", nullptr, nullptr));
  EXPECT_OK(cuMemFree(make_memory()));
  EXPECT_EQ(1, seen.times);
  EXPECT_EQ(-1, cenote_sim_before("cuNoSuchThing", meanwhile, &seen));
}

TEST_F(SimDriver, what_is_live_is_told) {
  make_memory(MiB);
  make_pinned(100);
  make_stream();
  make_event();
  const auto now = live();
  EXPECT_EQ(MiB, now.device_bytes);
  EXPECT_EQ(100U, now.pinned_bytes);
  EXPECT_EQ(2U, now.allocations);
  EXPECT_EQ(1U, now.streams);
  EXPECT_EQ(1U, now.events);
  EXPECT_EQ(2U, now.contexts);
  EXPECT_EQ(0U, now.pools);
}

TEST_F(SimDriver, draining_does_all_pending_work) {
  unsigned char* const memory = make_pinned(1, 0);
  EXPECT_OK(cuMemsetD8Async(device_address(memory), 1, 1, make_stream()));
  cenote_sim_drain();
  EXPECT_EQ(1, memory[0]);
  EXPECT_EQ(0U, cenote_sim_pending());
}

TEST_F(SimDriver, a_forked_child_cannot_use_the_driver_it_inherited) {
  const pid_t child = fork();
  if (child == 0) {
    int count = 0;
    _exit(cuDeviceGetCount(&count));
  }
  int status = 0;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(CUDA_ERROR_NOT_INITIALIZED, WEXITSTATUS(status));
  int count = 0;
  EXPECT_OK(cuDeviceGetCount(&count));
}

}  // namespace
}  // namespace cenote::sim_test
