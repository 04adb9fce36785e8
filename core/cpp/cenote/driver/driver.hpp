// The table of the CUDA driver's entry points: the only way from cenote to a GPU, real or simulated.
//
// How it works
//   1. driver() loads the library at first use: libcuda.so.1, or what CENOTE_CUDA_DRIVER names; the word `sim` names
//      libcenote_sim.so, which lies beside libcenote.so.
//   2. Each entry point of entry_points.hpp is taken through cuGetProcAddress by base name and explicit version.
//   3. cuInit runs once. What fails is kept and thrown again at every later call, as driver_unavailable.
//
// Threads: the first call loads under a lock; later calls are one atomic load.
// Cost: 1 ns a call besides the driver's own. Internal to layer 1: the only header that includes <cuda.h>.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include <string>

namespace cenote::inline v1 {

struct driver_table {
#define CENOTE_DRIVER_REQUIRED(name, version) PFN_##name##_v##version name = nullptr;
#define CENOTE_DRIVER_OPTIONAL(name, version) PFN_##name##_v##version name = nullptr;
#include "cenote/driver/entry_points.hpp"
#undef CENOTE_DRIVER_REQUIRED
#undef CENOTE_DRIVER_OPTIONAL
};

/// The table; throws driver_unavailable where there is no usable driver.
const driver_table& driver();

/// Throws cuda_error for `result`, naming `call`.
[[noreturn]] void throw_cuda_error(const char* call, CUresult result);

inline void check_driver(const char* call, CUresult result) {
  if (result != CUDA_SUCCESS) throw_cuda_error(call, result);
}

/// Names a device's memory. It is assigned member by member: some toolkits' headers have the number in a union.
inline CUmemLocation location_of(int device) noexcept {
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device;
  return location;
}

/// Makes a call that gives something back, and makes it again where it failed: there is nothing else that could be
/// done, and the answer may have been the error of earlier work.
template <class Call>
CUresult try_twice(Call&& call) {
  const CUresult result = call();
  return result == CUDA_SUCCESS ? result : call();
}

/// Reports what throw_cuda_error would throw, after `what_of_it`, such as "a block is leaked: ", and needs no memory of
/// the host; nothing for CUDA_SUCCESS.
void report_driver_failure(const char* call, CUresult result, const char* what_of_it = "") noexcept;

/// As check_driver, for a call that ends every capture of the context. Where there was one after all, the error says
/// so, and what to do.
void check_driver_beside_captures(const char* call, CUresult result);

}  // namespace cenote::inline v1

/// Calls an entry point and throws cuda_error unless it succeeded: CENOTE_DRIVER_CALL(cuMemFree, pointer).
#define CENOTE_DRIVER_CALL(name, ...) ::cenote::check_driver(#name, ::cenote::driver().name(__VA_ARGS__))
