// Error codes by name, for those who arm failures.
#pragma once

#include <optional>
#include <string_view>

#include "cuda_driver.hpp"

namespace cenote::sim {

/// "CUDA_ERROR_OUT_OF_MEMORY" → its code; nothing for a name that is no error code.
std::optional<CUresult> error_code(std::string_view name);

}  // namespace cenote::sim
