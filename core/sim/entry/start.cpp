// The start: cuInit, and what can be asked before it.
#include <cstdio>
#include <stdexcept>

#include "sim/entry/call.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/settings.hpp"
#include "sim/machine/reset.hpp"

namespace cenote::sim {
namespace {

void initialise() {
  try {
    build_machine(settings_from_environment());
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\n", error.what());
    this_machine().wrong_settings = error.what();
    fail(CUDA_ERROR_INVALID_VALUE);
  }
  require(this_machine().initialised, CUDA_ERROR_NO_DEVICE);
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuInit(unsigned int flags) {
  return call(entry_id::cuInit, [&] {
    require(flags == 0);
    if (!this_machine().initialised) {
      initialise();
    }
  });
}

CUresult cuDriverGetVersion(int* version) {
  return call(entry_id::cuDriverGetVersion, [&] {
    require(version != nullptr);
    *version = this_machine().version();
  });
}

}  // extern "C"
