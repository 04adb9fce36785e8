// Names and texts of error codes. The text is the name in lower case with spaces, which for most codes is the driver's
// own wording ("out of memory").
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

struct error_text {
  CUresult code;
  const char* name;
  std::string text;
};

/// Null for a number that is no error code.
const error_text* find_error_text(CUresult code);

/// "CUDA_ERROR_OUT_OF_MEMORY" → its code, for a test that arms a failure; nothing for a name that is no error code.
std::optional<CUresult> error_code(std::string_view name);

}  // namespace cenote::sim
