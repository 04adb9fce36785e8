// The environment of the process, as far as it may be followed.
//
// In secure execution (a set-user-id program, or one with capabilities of its file) whoever calls the program chooses
// its environment and must not choose its files and libraries: no variable is followed there.
#pragma once

#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

/// The value of a variable; null where it is not set or empty, and in secure execution.
CENOTE_EXPORT const char* environment_variable(const char* name) noexcept;

/// The same for a variable that means something when it is empty, such as CUDA_VISIBLE_DEVICES.
const char* environment_text(const char* name) noexcept;

/// Whether the process has rights that its caller does not have.
CENOTE_EXPORT bool is_secure_execution() noexcept;

}  // namespace cenote::inline v1
