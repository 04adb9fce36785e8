// Names and texts of error codes. The text is the name in lower case with spaces, which for most codes is the driver's
// own wording ("out of memory").
#include "error_text.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

#include "call.hpp"
#include "driver.hpp"

namespace cenote::sim {
namespace {

struct error_text {
  CUresult code;
  const char* name;
  std::string text;
};

std::string text_of(std::string_view name) {
  constexpr std::string_view error_prefix = "CUDA_ERROR_";
  if (!name.starts_with(error_prefix)) {
    return "no error";
  }
  std::string text(name.substr(error_prefix.size()));
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return letter == '_' ? ' ' : static_cast<char>(std::tolower(letter)); });
  return text;
}

#define SIM_ERROR(code) \
  error_text { code, #code, text_of(#code) }

// Never destroyed: the driver answers while the process exits.
const auto& texts = *new std::array{
    SIM_ERROR(CUDA_SUCCESS),
    SIM_ERROR(CUDA_ERROR_INVALID_VALUE),
    SIM_ERROR(CUDA_ERROR_OUT_OF_MEMORY),
    SIM_ERROR(CUDA_ERROR_NOT_INITIALIZED),
    SIM_ERROR(CUDA_ERROR_DEINITIALIZED),
    SIM_ERROR(CUDA_ERROR_PROFILER_DISABLED),
    SIM_ERROR(CUDA_ERROR_PROFILER_NOT_INITIALIZED),
    SIM_ERROR(CUDA_ERROR_PROFILER_ALREADY_STARTED),
    SIM_ERROR(CUDA_ERROR_PROFILER_ALREADY_STOPPED),
    SIM_ERROR(CUDA_ERROR_STUB_LIBRARY),
    SIM_ERROR(CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER),
    SIM_ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE),
    SIM_ERROR(CUDA_ERROR_NO_DEVICE),
    SIM_ERROR(CUDA_ERROR_INVALID_DEVICE),
    SIM_ERROR(CUDA_ERROR_DEVICE_NOT_LICENSED),
    SIM_ERROR(CUDA_ERROR_INVALID_IMAGE),
    SIM_ERROR(CUDA_ERROR_INVALID_CONTEXT),
    SIM_ERROR(CUDA_ERROR_CONTEXT_ALREADY_CURRENT),
    SIM_ERROR(CUDA_ERROR_MAP_FAILED),
    SIM_ERROR(CUDA_ERROR_UNMAP_FAILED),
    SIM_ERROR(CUDA_ERROR_ARRAY_IS_MAPPED),
    SIM_ERROR(CUDA_ERROR_ALREADY_MAPPED),
    SIM_ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU),
    SIM_ERROR(CUDA_ERROR_ALREADY_ACQUIRED),
    SIM_ERROR(CUDA_ERROR_NOT_MAPPED),
    SIM_ERROR(CUDA_ERROR_NOT_MAPPED_AS_ARRAY),
    SIM_ERROR(CUDA_ERROR_NOT_MAPPED_AS_POINTER),
    SIM_ERROR(CUDA_ERROR_ECC_UNCORRECTABLE),
    SIM_ERROR(CUDA_ERROR_UNSUPPORTED_LIMIT),
    SIM_ERROR(CUDA_ERROR_CONTEXT_ALREADY_IN_USE),
    SIM_ERROR(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED),
    SIM_ERROR(CUDA_ERROR_INVALID_PTX),
    SIM_ERROR(CUDA_ERROR_INVALID_GRAPHICS_CONTEXT),
    SIM_ERROR(CUDA_ERROR_NVLINK_UNCORRECTABLE),
    SIM_ERROR(CUDA_ERROR_JIT_COMPILER_NOT_FOUND),
    SIM_ERROR(CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
    SIM_ERROR(CUDA_ERROR_JIT_COMPILATION_DISABLED),
    SIM_ERROR(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY),
    SIM_ERROR(CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC),
    SIM_ERROR(CUDA_ERROR_CONTAINED),
    SIM_ERROR(CUDA_ERROR_INVALID_SOURCE),
    SIM_ERROR(CUDA_ERROR_FILE_NOT_FOUND),
    SIM_ERROR(CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND),
    SIM_ERROR(CUDA_ERROR_SHARED_OBJECT_INIT_FAILED),
    SIM_ERROR(CUDA_ERROR_OPERATING_SYSTEM),
    SIM_ERROR(CUDA_ERROR_INVALID_HANDLE),
    SIM_ERROR(CUDA_ERROR_ILLEGAL_STATE),
    SIM_ERROR(CUDA_ERROR_LOSSY_QUERY),
    SIM_ERROR(CUDA_ERROR_NOT_FOUND),
    SIM_ERROR(CUDA_ERROR_NOT_READY),
    SIM_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS),
    SIM_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES),
    SIM_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT),
    SIM_ERROR(CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING),
    SIM_ERROR(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED),
    SIM_ERROR(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED),
    SIM_ERROR(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE),
    SIM_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED),
    SIM_ERROR(CUDA_ERROR_ASSERT),
    SIM_ERROR(CUDA_ERROR_TOO_MANY_PEERS),
    SIM_ERROR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED),
    SIM_ERROR(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED),
    SIM_ERROR(CUDA_ERROR_HARDWARE_STACK_ERROR),
    SIM_ERROR(CUDA_ERROR_ILLEGAL_INSTRUCTION),
    SIM_ERROR(CUDA_ERROR_MISALIGNED_ADDRESS),
    SIM_ERROR(CUDA_ERROR_INVALID_ADDRESS_SPACE),
    SIM_ERROR(CUDA_ERROR_INVALID_PC),
    SIM_ERROR(CUDA_ERROR_LAUNCH_FAILED),
    SIM_ERROR(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE),
    SIM_ERROR(CUDA_ERROR_TENSOR_MEMORY_LEAK),
    SIM_ERROR(CUDA_ERROR_NOT_PERMITTED),
    SIM_ERROR(CUDA_ERROR_NOT_SUPPORTED),
    SIM_ERROR(CUDA_ERROR_SYSTEM_NOT_READY),
    SIM_ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
    SIM_ERROR(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE),
    SIM_ERROR(CUDA_ERROR_MPS_CONNECTION_FAILED),
    SIM_ERROR(CUDA_ERROR_MPS_RPC_FAILURE),
    SIM_ERROR(CUDA_ERROR_MPS_SERVER_NOT_READY),
    SIM_ERROR(CUDA_ERROR_MPS_MAX_CLIENTS_REACHED),
    SIM_ERROR(CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED),
    SIM_ERROR(CUDA_ERROR_MPS_CLIENT_TERMINATED),
    SIM_ERROR(CUDA_ERROR_CDP_NOT_SUPPORTED),
    SIM_ERROR(CUDA_ERROR_CDP_VERSION_MISMATCH),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    SIM_ERROR(CUDA_ERROR_CAPTURED_EVENT),
    SIM_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD),
    SIM_ERROR(CUDA_ERROR_TIMEOUT),
    SIM_ERROR(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE),
    SIM_ERROR(CUDA_ERROR_EXTERNAL_DEVICE),
    SIM_ERROR(CUDA_ERROR_INVALID_CLUSTER_SIZE),
    SIM_ERROR(CUDA_ERROR_FUNCTION_NOT_LOADED),
    SIM_ERROR(CUDA_ERROR_INVALID_RESOURCE_TYPE),
    SIM_ERROR(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION),
    SIM_ERROR(CUDA_ERROR_KEY_ROTATION),
    SIM_ERROR(CUDA_ERROR_UNKNOWN),
};

#undef SIM_ERROR

CUresult tell(CUresult code, const char** out, const char* (*part)(const error_text&)) {
  require(out != nullptr);
  *out = nullptr;
  const auto found = std::find_if(texts.begin(), texts.end(), [&](const error_text& row) { return row.code == code; });
  require(found != texts.end());
  *out = part(*found);
  return CUDA_SUCCESS;
}

}  // namespace

std::optional<CUresult> error_code(std::string_view name) {
  const auto found = std::find_if(texts.begin(), texts.end(), [&](const error_text& row) { return row.name == name; });
  return found == texts.end() ? std::nullopt : std::optional(found->code);
}

}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuGetErrorName(CUresult code, const char** name) {
  return call(entry_id::cuGetErrorName, [&] { return tell(code, name, [](const error_text& row) { return row.name; }); });
}

CUresult cuGetErrorString(CUresult code, const char** text) {
  return call(entry_id::cuGetErrorString, [&] {
    // A program that shows the driver's text shows what is wrong with CENOTE_SIM.
    const std::string& wrong = driver().wrong_settings;
    if (code == CUDA_ERROR_INVALID_VALUE && !driver().initialised && !wrong.empty()) {
      require(text != nullptr);
      *text = wrong.c_str();
      return CUDA_SUCCESS;
    }
    return tell(code, text, [](const error_text& row) { return row.text.c_str(); });
  });
}

}  // extern "C"
