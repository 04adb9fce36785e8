// Every entry point of the CUDA driver that cenote calls, with the ABI version it is asked for.
//
// An entry point is taken by its base name and an explicit version (cuGetProcAddress), never "the latest": one set of
// headers then means one ABI on every driver, so that one binary serves CUDA 12 and 13. The version also names the
// function pointer type in <cudaTypedefs.h>: PFN_<name>_v<version>.
//
// CENOTE_DRIVER_REQUIRED(name, version)   every driver from 12.0 on has it; one that lacks it is too old
// CENOTE_DRIVER_OPTIONAL(name, version)   null where the driver lacks it; the caller looks before it calls
//
// Source: <cudaTypedefs.h> of CUDA 13; the versions are those that CUDA 12.0 already answers.

CENOTE_DRIVER_REQUIRED(cuDriverGetVersion, 2020)
CENOTE_DRIVER_REQUIRED(cuGetErrorName, 6000)
CENOTE_DRIVER_REQUIRED(cuGetErrorString, 6000)

CENOTE_DRIVER_REQUIRED(cuDeviceGet, 2000)
CENOTE_DRIVER_REQUIRED(cuDeviceGetCount, 2000)
CENOTE_DRIVER_REQUIRED(cuDeviceGetName, 2000)
CENOTE_DRIVER_REQUIRED(cuDeviceGetUuid, 11040)
CENOTE_DRIVER_REQUIRED(cuDeviceGetAttribute, 2000)
CENOTE_DRIVER_REQUIRED(cuDeviceTotalMem, 3020)
CENOTE_DRIVER_REQUIRED(cuDeviceCanAccessPeer, 4000)

CENOTE_DRIVER_REQUIRED(cuDevicePrimaryCtxRetain, 7000)
CENOTE_DRIVER_REQUIRED(cuCtxGetCurrent, 4000)
CENOTE_DRIVER_REQUIRED(cuCtxSetCurrent, 4000)
CENOTE_DRIVER_REQUIRED(cuCtxGetDevice, 2000)
CENOTE_DRIVER_REQUIRED(cuCtxPushCurrent, 4000)
CENOTE_DRIVER_REQUIRED(cuCtxPopCurrent, 4000)
CENOTE_DRIVER_REQUIRED(cuCtxSynchronize, 2000)
CENOTE_DRIVER_OPTIONAL(cuCtxRecordEvent, 12050)

CENOTE_DRIVER_REQUIRED(cuMemGetInfo, 3020)
CENOTE_DRIVER_REQUIRED(cuMemAlloc, 3020)
CENOTE_DRIVER_REQUIRED(cuMemFree, 3020)
CENOTE_DRIVER_REQUIRED(cuMemAllocManaged, 6000)
CENOTE_DRIVER_REQUIRED(cuMemHostAlloc, 2020)
CENOTE_DRIVER_REQUIRED(cuMemFreeHost, 2000)
CENOTE_DRIVER_REQUIRED(cuMemHostRegister, 6050)
CENOTE_DRIVER_REQUIRED(cuMemHostUnregister, 4000)
CENOTE_DRIVER_REQUIRED(cuMemGetAddressRange, 3020)
CENOTE_DRIVER_REQUIRED(cuPointerGetAttribute, 4000)

CENOTE_DRIVER_REQUIRED(cuMemPoolCreate, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolDestroy, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolSetAttribute, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolGetAttribute, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolSetAccess, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolTrimTo, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolExportToShareableHandle, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolImportFromShareableHandle, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolExportPointer, 11020)
CENOTE_DRIVER_REQUIRED(cuMemPoolImportPointer, 11020)
CENOTE_DRIVER_OPTIONAL(cuMemGetDefaultMemPool, 13000)
CENOTE_DRIVER_REQUIRED(cuMemAllocFromPoolAsync, 11020)
CENOTE_DRIVER_REQUIRED(cuMemFreeAsync, 11020)

CENOTE_DRIVER_REQUIRED(cuMemGetAllocationGranularity, 10020)
CENOTE_DRIVER_REQUIRED(cuMemAddressReserve, 10020)
CENOTE_DRIVER_REQUIRED(cuMemAddressFree, 10020)
CENOTE_DRIVER_REQUIRED(cuMemCreate, 10020)
CENOTE_DRIVER_REQUIRED(cuMemRelease, 10020)
CENOTE_DRIVER_REQUIRED(cuMemMap, 10020)
CENOTE_DRIVER_REQUIRED(cuMemUnmap, 10020)
CENOTE_DRIVER_REQUIRED(cuMemSetAccess, 10020)
CENOTE_DRIVER_REQUIRED(cuMemRetainAllocationHandle, 11000)
CENOTE_DRIVER_REQUIRED(cuMemExportToShareableHandle, 10020)
CENOTE_DRIVER_REQUIRED(cuMemImportFromShareableHandle, 10020)

CENOTE_DRIVER_REQUIRED(cuMemcpyAsync, 4000)
CENOTE_DRIVER_REQUIRED(cuMemsetD8Async, 3020)
CENOTE_DRIVER_REQUIRED(cuMemPrefetchAsync, 8000)
CENOTE_DRIVER_REQUIRED(cuMemAdvise, 8000)

CENOTE_DRIVER_REQUIRED(cuStreamCreate, 2000)
CENOTE_DRIVER_REQUIRED(cuStreamDestroy, 4000)
CENOTE_DRIVER_REQUIRED(cuStreamSynchronize, 2000)
CENOTE_DRIVER_REQUIRED(cuStreamQuery, 2000)
CENOTE_DRIVER_REQUIRED(cuStreamWaitEvent, 3020)
CENOTE_DRIVER_REQUIRED(cuStreamGetId, 12000)
CENOTE_DRIVER_REQUIRED(cuStreamGetCtx, 9020)
CENOTE_DRIVER_REQUIRED(cuStreamIsCapturing, 10000)
CENOTE_DRIVER_REQUIRED(cuStreamGetCaptureInfo, 11030)
CENOTE_DRIVER_REQUIRED(cuThreadExchangeStreamCaptureMode, 10010)
CENOTE_DRIVER_REQUIRED(cuUserObjectCreate, 11030)
CENOTE_DRIVER_REQUIRED(cuUserObjectRelease, 11030)
CENOTE_DRIVER_REQUIRED(cuGraphRetainUserObject, 11030)

CENOTE_DRIVER_REQUIRED(cuEventCreate, 2000)
CENOTE_DRIVER_REQUIRED(cuEventDestroy, 4000)
CENOTE_DRIVER_REQUIRED(cuEventRecord, 2000)
CENOTE_DRIVER_REQUIRED(cuEventQuery, 2000)
CENOTE_DRIVER_REQUIRED(cuEventSynchronize, 2000)
CENOTE_DRIVER_REQUIRED(cuIpcGetEventHandle, 4010)
CENOTE_DRIVER_REQUIRED(cuIpcOpenEventHandle, 4010)
