// A stream of each device that lives as long as the process, for frees that come after all work.
//
// PyTorch makes its own streams by the dozen, which take tens of megabytes of the device; this is one.
//
// Threads: any. Cost: a stream for each device that needs one.
#pragma once

#include <c10/core/Device.h>
#include <cuda_runtime_api.h>

namespace cenote::torch {

/// Throws c10::Error where none can be made.
cudaStream_t lasting_stream(c10::DeviceIndex device);

}  // namespace cenote::torch
