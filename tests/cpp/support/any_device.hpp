// The fixture of tests that run on the simulated device and on a real one: the same programs on both.
//
// What only the simulator can tell (which objects were leaked, what a driver would not forgive) it is asked where it is
// the driver. Its functions are found in the library that is loaded, not linked: the simulator has the driver's own
// symbols, and must not stand before a real one's.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote_sim.h"

namespace cenote::test {

/// A function of the driver's library, which is loaded.
template <class Function>
Function* driver_function(const char* name) {
  void* const library = dlopen(driver_library().c_str(), RTLD_NOW | RTLD_NOLOAD);
  void* const symbol = library == nullptr ? nullptr : dlsym(library, name);
  if (symbol == nullptr) throw std::logic_error("the driver has no " + std::string(name));
  dlclose(library);  // only the reference that was counted here
  return reinterpret_cast<Function*>(symbol);
}

/// What the simulated driver answers and a real one cannot.
struct simulator_functions {
#define CENOTE_SIMULATOR_FUNCTION(name) \
  decltype(::cenote_sim_##name)* name = driver_function<decltype(::cenote_sim_##name)>("cenote_sim_" #name)
  CENOTE_SIMULATOR_FUNCTION(live);
  CENOTE_SIMULATOR_FUNCTION(drain);
  CENOTE_SIMULATOR_FUNCTION(fail);
  CENOTE_SIMULATOR_FUNCTION(calls);
  CENOTE_SIMULATOR_FUNCTION(reset_calls);
  CENOTE_SIMULATOR_FUNCTION(violation);
  CENOTE_SIMULATOR_FUNCTION(violation_count);
  CENOTE_SIMULATOR_FUNCTION(clear_violations);
#undef CENOTE_SIMULATOR_FUNCTION

  /// Without the pools that wait to be used again.
  cenote_sim_live_objects live_objects() const {
    cenote_sim_live_objects objects{};
    live(&objects);
    for (int device = 0; device < device_count(); ++device) objects.pools -= driver_pools::of(device).idle();
    return objects;
  }

  std::vector<std::string> violations() const {
    std::vector<std::string> lines;
    for (int i = 0; i < violation_count(); ++i) {
      char text[512] = {};
      violation(i, text, sizeof(text));
      lines.emplace_back(text);
    }
    return lines;
  }
};

/// Null on a real device.
inline const simulator_functions* simulator() {
  static const auto found = driver_is_simulated() ? std::make_unique<const simulator_functions>() : nullptr;
  return found.get();
}

/// Objects that the program made and has not given back, of every kind but contexts, which are kept for the process.
inline std::uint64_t count_objects(const cenote_sim_live_objects& live) {
  return live.allocations + live.pools + live.streams + live.events + live.graphs + live.reservations + live.mappings +
         live.handles;
}

/// How many devices tests use of those that there are.
inline int tested_device_count() { return std::min(device_count(), 2); }

/// On the simulated device. What is unused in the driver's pools goes back to the devices as well.
inline void finish_all_work() {
  simulator()->drain();
  synchronize_device(0);
}

/// A test must leave the driver with as many objects as it found, and do nothing that the driver forbids. Both are
/// known on the simulated device only.
class any_device : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int device = 0; device < tested_device_count(); ++device) synchronize_device(device);  // retains the contexts
    if (simulator() == nullptr) return;
    simulator()->clear_violations();
    simulator()->reset_calls();
    before_ = simulator()->live_objects();
  }

  void TearDown() override {
    if (simulator() == nullptr) return;
    finish_all_work();
    const auto after = simulator()->live_objects();
    EXPECT_EQ(count_objects(after), count_objects(before_)) << "objects of the driver were leaked";
    EXPECT_EQ(after.device_bytes, before_.device_bytes) << "device memory was leaked";
    for (const std::string& line : simulator()->violations()) ADD_FAILURE() << "violation: " << line;
  }

 private:
  cenote_sim_live_objects before_{};
};

/// The bytes at `memory` once the work queued on `stream` is done; no other stream is waited for.
inline std::vector<unsigned char> read(const void* memory, std::size_t bytes, stream_ref stream, int device = 0) {
  std::vector<unsigned char> host(bytes);
  copy_async(host.data(), memory, bytes, stream, device);
  synchronize(stream, device);
  return host;
}

/// By memcmp, as a loop over bytes is slow under sanitizers.
inline bool all_are(const std::vector<unsigned char>& bytes, unsigned char value) {
  return bytes.empty() || (bytes[0] == value && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace cenote::test
