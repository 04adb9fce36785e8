// Every entry point of the simulated driver: one row each, the one place that lists them.
//
// SIM_ENTRY_POINT(symbol, name, version, scope, capture)
//   symbol   the exported C symbol, with its ABI suffix
//   name     the base name, by which cuGetProcAddress is asked, calls are counted and failures are armed
//   version  the first CUDA version that has this ABI of the name
//   scope    what must be there before the call: `anytime`, `initialised` (cuInit), `in_context` (a current context)
//   capture  what an ongoing capture says to the call: `allowed`; `relaxed`, a potentially unsafe call, allowed only
//            where every capture in its way is relaxed; `own`, the answer depends on the arguments and the body asks
//
// Rows of one name stand in order of version.
//
// Source: <cudaTypedefs.h> of CUDA 13 for the versions; scope and capture were measured call by call on an H100,
// driver 580.159.04, with no context current and in captures of all three modes.

SIM_ENTRY_POINT(cuInit, cuInit, 2000, anytime, allowed)
SIM_ENTRY_POINT(cuDriverGetVersion, cuDriverGetVersion, 2020, anytime, allowed)
SIM_ENTRY_POINT(cuGetErrorName, cuGetErrorName, 6000, anytime, allowed)
SIM_ENTRY_POINT(cuGetErrorString, cuGetErrorString, 6000, anytime, allowed)
SIM_ENTRY_POINT(cuGetProcAddress, cuGetProcAddress, 11030, anytime, allowed)
SIM_ENTRY_POINT(cuGetProcAddress_v2, cuGetProcAddress, 12000, anytime, allowed)

SIM_ENTRY_POINT(cuDeviceGet, cuDeviceGet, 2000, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetCount, cuDeviceGetCount, 2000, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetName, cuDeviceGetName, 2000, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetAttribute, cuDeviceGetAttribute, 2000, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetUuid, cuDeviceGetUuid, 9020, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetUuid_v2, cuDeviceGetUuid, 11040, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceTotalMem_v2, cuDeviceTotalMem, 3020, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceCanAccessPeer, cuDeviceCanAccessPeer, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetDefaultMemPool, cuDeviceGetDefaultMemPool, 11020, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceGetMemPool, cuDeviceGetMemPool, 11020, initialised, allowed)
SIM_ENTRY_POINT(cuDeviceSetMemPool, cuDeviceSetMemPool, 11020, initialised, allowed)

SIM_ENTRY_POINT(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, initialised, allowed)
SIM_ENTRY_POINT(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease, 7000, initialised, allowed)
SIM_ENTRY_POINT(cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRelease, 11000, initialised, allowed)
SIM_ENTRY_POINT(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState, 7000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxGetCurrent, cuCtxGetCurrent, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxSetCurrent, cuCtxSetCurrent, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxGetDevice, cuCtxGetDevice, 2000, in_context, allowed)
SIM_ENTRY_POINT(cuCtxGetDevice_v2, cuCtxGetDevice, 13000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxPushCurrent_v2, cuCtxPushCurrent, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxPopCurrent_v2, cuCtxPopCurrent, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuCtxSynchronize, cuCtxSynchronize, 2000, in_context, own)
SIM_ENTRY_POINT(cuCtxSynchronize_v2, cuCtxSynchronize, 13000, initialised, own)
SIM_ENTRY_POINT(cuCtxRecordEvent, cuCtxRecordEvent, 12050, initialised, own)

SIM_ENTRY_POINT(cuCtxEnablePeerAccess, cuCtxEnablePeerAccess, 4000, in_context, allowed)
SIM_ENTRY_POINT(cuCtxDisablePeerAccess, cuCtxDisablePeerAccess, 4000, in_context, allowed)

SIM_ENTRY_POINT(cuMemGetInfo_v2, cuMemGetInfo, 3020, in_context, allowed)
SIM_ENTRY_POINT(cuMemAlloc_v2, cuMemAlloc, 3020, in_context, relaxed)
SIM_ENTRY_POINT(cuMemFree_v2, cuMemFree, 3020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemAllocManaged, cuMemAllocManaged, 6000, in_context, relaxed)
SIM_ENTRY_POINT(cuMemHostAlloc, cuMemHostAlloc, 2020, in_context, relaxed)
SIM_ENTRY_POINT(cuMemAllocHost_v2, cuMemAllocHost, 3020, in_context, relaxed)
SIM_ENTRY_POINT(cuMemFreeHost, cuMemFreeHost, 2000, initialised, relaxed)

SIM_ENTRY_POINT(cuMemHostGetDevicePointer_v2, cuMemHostGetDevicePointer, 3020, in_context, allowed)
SIM_ENTRY_POINT(cuMemGetAddressRange_v2, cuMemGetAddressRange, 3020, in_context, allowed)
SIM_ENTRY_POINT(cuPointerGetAttribute, cuPointerGetAttribute, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuIpcGetMemHandle, cuIpcGetMemHandle, 4010, in_context, allowed)

SIM_ENTRY_POINT(cuMemPoolCreate, cuMemPoolCreate, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolDestroy, cuMemPoolDestroy, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolSetAttribute, cuMemPoolSetAttribute, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolGetAttribute, cuMemPoolGetAttribute, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolSetAccess, cuMemPoolSetAccess, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolGetAccess, cuMemPoolGetAccess, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemPoolTrimTo, cuMemPoolTrimTo, 11020, initialised, relaxed)
SIM_ENTRY_POINT(cuMemGetDefaultMemPool, cuMemGetDefaultMemPool, 13000, initialised, allowed)
SIM_ENTRY_POINT(cuMemGetMemPool, cuMemGetMemPool, 13000, initialised, allowed)
SIM_ENTRY_POINT(cuMemSetMemPool, cuMemSetMemPool, 13000, initialised, relaxed)
SIM_ENTRY_POINT(cuMemAllocAsync, cuMemAllocAsync, 11020, initialised, own)
SIM_ENTRY_POINT(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, 11020, initialised, own)
SIM_ENTRY_POINT(cuMemFreeAsync, cuMemFreeAsync, 11020, initialised, own)

SIM_ENTRY_POINT(cuMemcpy, cuMemcpy, 4000, in_context, own)
SIM_ENTRY_POINT(cuMemcpyHtoD_v2, cuMemcpyHtoD, 3020, in_context, own)
SIM_ENTRY_POINT(cuMemcpyDtoH_v2, cuMemcpyDtoH, 3020, in_context, own)
SIM_ENTRY_POINT(cuMemcpyAsync, cuMemcpyAsync, 4000, initialised, own)
SIM_ENTRY_POINT(cuMemsetD8Async, cuMemsetD8Async, 3020, initialised, own)
SIM_ENTRY_POINT(cuMemPrefetchAsync, cuMemPrefetchAsync, 8000, initialised, own)
SIM_ENTRY_POINT(cuMemPrefetchAsync_v2, cuMemPrefetchAsync, 12020, initialised, own)
SIM_ENTRY_POINT(cuMemAdvise, cuMemAdvise, 8000, in_context, relaxed)
SIM_ENTRY_POINT(cuMemAdvise_v2, cuMemAdvise, 12020, in_context, relaxed)
SIM_ENTRY_POINT(cuMemRangeGetAttribute, cuMemRangeGetAttribute, 8000, in_context, allowed)

SIM_ENTRY_POINT(cuStreamCreate, cuStreamCreate, 2000, in_context, allowed)
SIM_ENTRY_POINT(cuStreamCreateWithPriority, cuStreamCreateWithPriority, 5050, in_context, allowed)
SIM_ENTRY_POINT(cuStreamDestroy_v2, cuStreamDestroy, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuStreamSynchronize, cuStreamSynchronize, 2000, initialised, own)
SIM_ENTRY_POINT(cuStreamQuery, cuStreamQuery, 2000, initialised, own)
SIM_ENTRY_POINT(cuStreamWaitEvent, cuStreamWaitEvent, 3020, initialised, own)
SIM_ENTRY_POINT(cuStreamGetId, cuStreamGetId, 12000, initialised, own)
SIM_ENTRY_POINT(cuStreamGetCtx, cuStreamGetCtx, 9020, initialised, own)
SIM_ENTRY_POINT(cuLaunchHostFunc, cuLaunchHostFunc, 10000, initialised, own)

SIM_ENTRY_POINT(cuStreamBeginCapture_v2, cuStreamBeginCapture, 10010, initialised, own)
SIM_ENTRY_POINT(cuStreamEndCapture, cuStreamEndCapture, 10000, initialised, own)
SIM_ENTRY_POINT(cuStreamIsCapturing, cuStreamIsCapturing, 10000, initialised, own)
SIM_ENTRY_POINT(cuStreamGetCaptureInfo, cuStreamGetCaptureInfo, 10010, initialised, own)
SIM_ENTRY_POINT(cuStreamGetCaptureInfo_v2, cuStreamGetCaptureInfo, 11030, initialised, own)
SIM_ENTRY_POINT(cuStreamGetCaptureInfo_v3, cuStreamGetCaptureInfo, 12030, initialised, own)
SIM_ENTRY_POINT(cuThreadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, 10010, initialised, allowed)
SIM_ENTRY_POINT(cuGraphDestroy, cuGraphDestroy, 10000, initialised, allowed)

SIM_ENTRY_POINT(cuEventCreate, cuEventCreate, 2000, in_context, allowed)
SIM_ENTRY_POINT(cuEventDestroy_v2, cuEventDestroy, 4000, initialised, allowed)
SIM_ENTRY_POINT(cuEventRecord, cuEventRecord, 2000, initialised, own)
SIM_ENTRY_POINT(cuEventQuery, cuEventQuery, 2000, initialised, own)
SIM_ENTRY_POINT(cuEventSynchronize, cuEventSynchronize, 2000, initialised, own)
SIM_ENTRY_POINT(cuEventElapsedTime, cuEventElapsedTime, 2000, initialised, allowed)
SIM_ENTRY_POINT(cuEventElapsedTime_v2, cuEventElapsedTime, 12080, initialised, allowed)

SIM_ENTRY_POINT(cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemAddressReserve, cuMemAddressReserve, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemAddressFree, cuMemAddressFree, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemCreate, cuMemCreate, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemRelease, cuMemRelease, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemMap, cuMemMap, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemUnmap, cuMemUnmap, 10020, initialised, allowed)
SIM_ENTRY_POINT(cuMemSetAccess, cuMemSetAccess, 10020, initialised, allowed)
