// RMM's macros of checks. Those with CUDA in their names call the CUDA runtime where they are used.
#pragma once

#include <cuda_runtime_api.h>

#include <rmm/error.hpp>
#include <string>

#define CENOTE_RMM_TEXT_OF(x) #x
#define CENOTE_RMM_TEXT(x) CENOTE_RMM_TEXT_OF(x)
#define CENOTE_RMM_HERE __FILE__ ":" CENOTE_RMM_TEXT(__LINE__) ": "
#define CENOTE_RMM_THIRD(first, second, third, ...) third
#define CENOTE_RMM_FOURTH(first, second, third, fourth, ...) fourth

#define CENOTE_RMM_EXPECTS(condition, reason, exception)                                           \
  do {                                                                                             \
    if (!(condition)) throw exception(std::string("RMM failure at: " CENOTE_RMM_HERE) + (reason)); \
  } while (false)
#define CENOTE_RMM_EXPECTS_LOGIC(condition, reason) CENOTE_RMM_EXPECTS(condition, reason, rmm::logic_error)
#define RMM_EXPECTS(...) CENOTE_RMM_FOURTH(__VA_ARGS__, CENOTE_RMM_EXPECTS, CENOTE_RMM_EXPECTS_LOGIC, none)(__VA_ARGS__)

#define CENOTE_RMM_FAIL(reason, exception) throw exception(std::string("RMM failure at: " CENOTE_RMM_HERE) + (reason))
#define CENOTE_RMM_FAIL_LOGIC(reason) CENOTE_RMM_FAIL(reason, rmm::logic_error)
#define RMM_FAIL(...) CENOTE_RMM_THIRD(__VA_ARGS__, CENOTE_RMM_FAIL, CENOTE_RMM_FAIL_LOGIC, none)(__VA_ARGS__)

#define CENOTE_RMM_CUDA_TRY(call, exception)                                                                       \
  do {                                                                                                             \
    const cudaError_t cenote_rmm_status = (call);                                                                  \
    if (cenote_rmm_status != cudaSuccess) {                                                                        \
      cudaGetLastError();                                                                                          \
      throw exception(std::string("CUDA error at: " CENOTE_RMM_HERE) + cudaGetErrorName(cenote_rmm_status) + " " + \
                      cudaGetErrorString(cenote_rmm_status));                                                      \
    }                                                                                                              \
  } while (false)
#define CENOTE_RMM_CUDA_TRY_ERROR(call) CENOTE_RMM_CUDA_TRY(call, rmm::cuda_error)
#define RMM_CUDA_TRY(...) \
  CENOTE_RMM_THIRD(__VA_ARGS__, CENOTE_RMM_CUDA_TRY, CENOTE_RMM_CUDA_TRY_ERROR, none)(__VA_ARGS__)
#define RMM_ASSERT_CUDA_SUCCESS(call) static_cast<void>(call)
