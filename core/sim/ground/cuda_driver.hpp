// The driver's own declarations, every ABI version of them, marked for export.
//
// 1. __CUDA_API_VERSION_INTERNAL makes <cuda.h> declare the symbols under their ABI names (cuMemAlloc_v2 beside the
//    first cuMemAlloc) where it would otherwise rename the newest one with a macro.
// 2. The declarations are given protected visibility. A definition takes the visibility of its declaration, so exactly
//    the driver symbols that this library defines leave it, and inside it they mean its own even where the real driver
//    is loaded too; everything else is hidden by -fvisibility=hidden.
//
// Source: <cuda.h> of CUDA 13.
#pragma once

#define __CUDA_API_VERSION_INTERNAL 1
#pragma GCC visibility push(protected)
#include <cuda.h>
#pragma GCC visibility pop
