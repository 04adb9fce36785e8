// What the tests of the simulated driver share: two cards of 1 GiB, a context on each, and a log that must end clean.
#pragma once

#include <cuda.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cenote_sim.h"

namespace cenote::sim_test {

inline constexpr std::size_t KiB = 1024;
inline constexpr std::size_t MiB = 1024 * KiB;
inline constexpr std::size_t card_bytes = 1024 * MiB;
inline constexpr std::size_t step = 2 * MiB;  // the granularity of physical memory

inline CUmemLocation at(CUmemLocationType type, int id = 0) {
  CUmemLocation location{};
  location.type = type;
  location.id = id;
  return location;
}

inline CUmemLocation on_device(int ordinal) { return at(CU_MEM_LOCATION_TYPE_DEVICE, ordinal); }
inline const CUmemLocation on_host = at(CU_MEM_LOCATION_TYPE_HOST);

#define EXPECT_OK(expression) EXPECT_EQ(CUDA_SUCCESS, (expression))
#define ASSERT_OK(expression) ASSERT_EQ(CUDA_SUCCESS, (expression))

/// The lines of the violation log, which is left empty.
inline std::vector<std::string> take_violations() {
  std::vector<std::string> lines;
  for (int i = 0; i < cenote_sim_violation_count(); ++i) {
    char text[512];
    cenote_sim_violation(i, text, sizeof text);
    lines.emplace_back(text);
  }
  cenote_sim_clear_violations();
  return lines;
}

/// One call was wrong, and the log says so in one line with that word in it.
inline void expect_violation(const std::string& word) {
  const auto lines = take_violations();
  ASSERT_EQ(1U, lines.size()) << "expected one line with '" << word << "'";
  EXPECT_NE(std::string::npos, lines[0].find(word)) << lines[0];
}

class Sim : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("CENOTE_SIM", "devices=2,memory=1GiB", 1);
    ASSERT_OK(cuInit(0));
  }

  void SetUp() override {
    for (int ordinal = 0; ordinal < 2; ++ordinal) {
      ASSERT_OK(cuDevicePrimaryCtxRetain(&contexts[ordinal], ordinal));
    }
    ASSERT_OK(cuCtxSetCurrent(contexts[0]));
    cenote_sim_clear_violations();
    cenote_sim_reset_calls();
  }

  /// The last release of a context destroys what a test has left in it.
  void TearDown() override {
    for (const auto& line : take_violations()) {
      ADD_FAILURE() << "violation: " << line;
    }
    EXPECT_OK(cuCtxSetCurrent(nullptr));
    for (int ordinal = 0; ordinal < 2; ++ordinal) {
      EXPECT_OK(cuDevicePrimaryCtxRelease(ordinal));
    }
    EXPECT_EQ(0U, cenote_sim_pending());
  }

  static CUstream make_stream(unsigned int flags = CU_STREAM_NON_BLOCKING) {
    CUstream stream = nullptr;
    EXPECT_OK(cuStreamCreate(&stream, flags));
    return stream;
  }

  static CUevent make_event(unsigned int flags = CU_EVENT_DISABLE_TIMING) {
    CUevent event = nullptr;
    EXPECT_OK(cuEventCreate(&event, flags));
    return event;
  }

  static CUevent record_on(CUstream stream) {
    CUevent event = make_event();
    EXPECT_OK(cuEventRecord(event, stream));
    return event;
  }

  static CUdeviceptr make_memory(std::size_t bytes = KiB) {
    CUdeviceptr address = 0;
    EXPECT_OK(cuMemAlloc(&address, bytes));
    return address;
  }

  /// Host memory that copies read when they run; filled with `value`.
  static unsigned char* make_pinned(std::size_t bytes = KiB, int value = 0) {
    void* address = nullptr;
    EXPECT_OK(cuMemHostAlloc(&address, bytes, 0));
    std::memset(address, value, bytes);
    return static_cast<unsigned char*>(address);
  }

  static CUdeviceptr device_address(const void* pinned) { return reinterpret_cast<CUdeviceptr>(pinned); }

  static std::size_t free_bytes() {
    std::size_t free = 0;
    std::size_t total = 0;
    EXPECT_OK(cuMemGetInfo(&free, &total));
    return free;
  }

  static cenote_sim_live_objects live() {
    cenote_sim_live_objects objects{};
    cenote_sim_live(&objects);
    return objects;
  }

  /// The byte that is there now: simulated memory is the host's, whatever is still queued.
  static int byte_at(CUdeviceptr address) { return *reinterpret_cast<const unsigned char*>(address); }

  CUcontext contexts[2]{};
};

}  // namespace cenote::sim_test
