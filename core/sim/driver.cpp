#include "driver.hpp"

#include <cstdio>
#include <stdexcept>

#include "call.hpp"

namespace cenote::sim {
namespace {

void initialise(Driver& sim) {
  try {
    build_machine(sim, settings_from_environment());
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\n", error.what());
    sim.wrong_settings = error.what();
    fail(CUDA_ERROR_INVALID_VALUE);
  }
  require(sim.initialised, CUDA_ERROR_NO_DEVICE);
}

}  // namespace

Driver& driver() {
  static Driver* const sim = new Driver;
  return *sim;
}

int Driver::version() const {
  if (initialised) {
    return settings.driver_version;
  }
  try {
    return settings_from_environment().driver_version;
  } catch (const std::invalid_argument&) {
    return machine_settings{}.driver_version;  // cuInit will say what is wrong
  }
}

void Driver::note_synchronisation() {
  pools.for_each([](CUmemoryPool, const std::shared_ptr<simulated_pool>& pool) { pool->synchronised(); });
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuInit(unsigned int flags) {
  return call(entry_id::cuInit, [&] {
    require(flags == 0);
    if (!driver().initialised) {
      initialise(driver());
    }
  });
}

CUresult cuDriverGetVersion(int* version) {
  return call(entry_id::cuDriverGetVersion, [&] {
    require(version != nullptr);
    *version = driver().version();
  });
}

}  // extern "C"
