// Which driver this process uses: facts to show people. Nothing of the allocation path asks.
#pragma once

#include <string>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// Whether the driver has been used in this process. Never loads it.
CENOTE_EXPORT bool driver_is_loaded() noexcept;

/// The library that was loaded, as given to dlopen.
CENOTE_EXPORT std::string driver_library();

/// 1000 * major + 10 * minor, as cuDriverGetVersion has it.
CENOTE_EXPORT int driver_version();

/// The CUDA version whose features cenote can use, in the same form: that of the headers which it was compiled with, or
/// the driver's where that is older. cenote has no CUDA runtime.
CENOTE_EXPORT int usable_cuda_version();

/// Whether that is cenote's simulated device.
CENOTE_EXPORT bool driver_is_simulated();

/// The next use loads the driver anew, and what has been asked of it is asked again: for another simulated machine in
/// the same process, or after an attempt to load that failed. No other thread uses the driver meanwhile.
/// Throws std::logic_error where a driver is in use that is not simulated.
CENOTE_EXPORT void forget_driver();

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
