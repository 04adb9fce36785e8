// Whether the process is ending, as far as it matters to memory of a device.
#pragma once

#include <rmm/detail/export.hpp>

#include "cenote/ground/process.hpp"

RMM_NAMESPACE_BEGIN

inline bool process_is_exiting() noexcept { return cenote::process_is_exiting(); }

RMM_NAMESPACE_END
