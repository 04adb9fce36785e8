// The function that an adaptor calls when memory has run out: it is told the size, and says whether to try again.
#pragma once

#include <cstddef>
#include <functional>
#include <rmm/detail/export.hpp>

RMM_NAMESPACE_BEGIN
namespace mr {

using failure_callback_t = std::function<bool(std::size_t, void*)>;

}  // namespace mr
RMM_NAMESPACE_END
