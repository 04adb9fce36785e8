// cuGetProcAddress: an entry point by base name and CUDA version.
//
// The newest ABI of the name that is no newer than the version asked for is answered. An ABI newer than the simulated
// driver does not exist in it. A name that is not answered is no error: the pointer is null, and the status, where it
// is asked for, says why.
//
// Source: the answers of an H100, driver 580.159.04.
#include <string_view>

#include "sim/entry/call.hpp"
#include "sim/ground/machine.hpp"

namespace cenote::sim {
namespace {

CUresult find_entry(const char* name, void** address, int version, CUdriverProcAddressQueryResult* status) {
  require(name != nullptr && address != nullptr);
  const int newest = this_machine().version();
  require(version >= 0 && version <= newest);
  *address = nullptr;
  auto found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  for (const entry_point& entry : entry_points()) {
    if (std::string_view(entry.name) != name || entry.version > newest) {
      continue;
    }
    if (entry.version <= version) {
      *address = entry.address;
      found = CU_GET_PROC_ADDRESS_SUCCESS;
    } else if (*address == nullptr) {
      found = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    }
  }
  if (status != nullptr) {
    *status = found;
  }
  return CUDA_SUCCESS;
}

/// Entry points whose stream 0 is the per-thread one are not simulated.
void check_flags(cuuint64_t flags) {
  require(flags == CU_GET_PROC_ADDRESS_DEFAULT || flags == CU_GET_PROC_ADDRESS_LEGACY_STREAM,
          flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuGetProcAddress(const char* name, void** address, int version, cuuint64_t flags) {
  return call(entry_id::cuGetProcAddress, [&] {
    check_flags(flags);
    auto status = CU_GET_PROC_ADDRESS_SUCCESS;
    const CUresult result = find_entry(name, address, version, &status);
    return status == CU_GET_PROC_ADDRESS_SUCCESS ? result : CUDA_ERROR_NOT_FOUND;
  });
}

CUresult cuGetProcAddress_v2(const char* name, void** address, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) {
  return call(entry_id::cuGetProcAddress_v2, [&] {
    check_flags(flags);
    return find_entry(name, address, version, status);
  });
}

}  // extern "C"
