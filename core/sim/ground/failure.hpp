// How a call of the simulated driver says no: a failure is thrown anywhere below an entry point, and the one guard at
// the entry (entry/call.hpp) turns it into the returned CUresult. Nothing thrown crosses the C ABI.
#pragma once

#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

struct failure {
  CUresult code;
};

[[noreturn]] inline void fail(CUresult code) { throw failure{code}; }

inline void require(bool holds, CUresult otherwise = CUDA_ERROR_INVALID_VALUE) {
  if (!holds) {
    fail(otherwise);
  }
}

}  // namespace cenote::sim
