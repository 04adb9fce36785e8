// Names and texts of error codes.
#include <string>

#include "sim/entry/call.hpp"
#include "sim/ground/error_text.hpp"
#include "sim/ground/machine.hpp"

namespace cenote::sim {
namespace {

CUresult tell(CUresult code, const char** out, const char* (*part)(const error_text&)) {
  require(out != nullptr);
  *out = nullptr;
  const error_text* const found = find_error_text(code);
  require(found != nullptr);
  *out = part(*found);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuGetErrorName(CUresult code, const char** name) {
  return call(entry_id::cuGetErrorName,
              [&] { return tell(code, name, [](const error_text& row) { return row.name; }); });
}

CUresult cuGetErrorString(CUresult code, const char** text) {
  return call(entry_id::cuGetErrorString, [&] {
    // A program that shows the driver's text shows what is wrong with CENOTE_SIM.
    const std::string& wrong = this_machine().wrong_settings;
    if (code == CUDA_ERROR_INVALID_VALUE && !this_machine().initialised && !wrong.empty()) {
      require(text != nullptr);
      *text = wrong.c_str();
      return CUDA_SUCCESS;
    }
    return tell(code, text, [](const error_text& row) { return row.text.c_str(); });
  });
}

}  // extern "C"
