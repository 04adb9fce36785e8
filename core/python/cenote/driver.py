"""The CUDA driver and its devices, as seen by this process.

The driver is loaded by the first call that needs it, never by an import. Where there is none, that call raises
`cenote.DriverUnavailableError`. The environment variable ``CENOTE_CUDA_DRIVER`` names another library; ``sim`` names
the simulated device.
"""

from __future__ import annotations

from typing import Any

from cenote._core.driver import (
    compute_capability,
    current_device,
    device_attribute,
    device_count,
    device_name,
    is_loaded,
    is_simulated,
    library,
    memory_info,
    runtime_version,
    set_device,
    synchronize,
    version,
)
from cenote._core.public_names import publish

__all__ = [
    "DeviceProperties",
    "compute_capability",
    "current_device",
    "device_attribute",
    "device_count",
    "device_name",
    "device_properties",
    "is_loaded",
    "is_simulated",
    "library",
    "memory_info",
    "runtime_version",
    "set_device",
    "synchronize",
    "version",
]

# Numbers of CUdevice_attribute.
_ATTRIBUTES = {
    "maxThreadsPerBlock": 1,
    "sharedMemPerBlock": 8,
    "totalConstMem": 9,
    "warpSize": 10,
    "memPitch": 11,
    "regsPerBlock": 12,
    "clockRate": 13,
    "textureAlignment": 14,
    "multiProcessorCount": 16,
    "kernelExecTimeoutEnabled": 17,
    "integrated": 18,
    "canMapHostMemory": 19,
    "computeMode": 20,
    "surfaceAlignment": 30,
    "concurrentKernels": 31,
    "ECCEnabled": 32,
    "pciBusID": 33,
    "pciDeviceID": 34,
    "tccDriver": 35,
    "memoryClockRate": 36,
    "memoryBusWidth": 37,
    "l2CacheSize": 38,
    "maxThreadsPerMultiProcessor": 39,
    "asyncEngineCount": 40,
    "unifiedAddressing": 41,
    "pciDomainID": 50,
    "texturePitchAlignment": 51,
    "major": 75,
    "minor": 76,
    "streamPrioritiesSupported": 78,
    "globalL1CacheSupported": 79,
    "localL1CacheSupported": 80,
    "sharedMemPerMultiprocessor": 81,
    "regsPerMultiprocessor": 82,
    "managedMemory": 83,
    "isMultiGpuBoard": 84,
    "multiGpuBoardGroupID": 85,
    "hostNativeAtomicSupported": 86,
    "singleToDoublePrecisionPerfRatio": 87,
    "pageableMemoryAccess": 88,
    "concurrentManagedAccess": 89,
    "computePreemptionSupported": 90,
    "canUseHostPointerForRegisteredMem": 91,
    "cooperativeLaunch": 95,
    "sharedMemPerBlockOptin": 97,
    "hostRegisterSupported": 99,
    "pageableMemoryAccessUsesHostPageTables": 100,
    "directManagedMemAccessFromHost": 101,
    "maxBlocksPerMultiProcessor": 106,
    "persistingL2CacheMaxSize": 108,
    "accessPolicyMaxWindowSize": 109,
    "reservedSharedMemPerBlock": 111,
    "memoryPoolsSupported": 115,
    "gpuDirectRDMASupported": 116,
    "memoryPoolSupportedHandleTypes": 119,
    "clusterLaunch": 120,
}
_TRIPLES = {"maxThreadsDim": (2, 3, 4), "maxGridSize": (5, 6, 7)}
_FIELDS = ("name", "totalGlobalMem", *_TRIPLES, *_ATTRIBUTES)


class DeviceProperties:
    """The properties of a device, each asked of the driver when it is first read.

    ``name`` is a str and ``totalGlobalMem`` in bytes; ``maxThreadsDim`` and ``maxGridSize`` are triples; all others
    are ints, 0 where the driver does not say. The fields of ``cudaDeviceProp`` that no attribute of the driver stands
    for (``uuid``, ``luid``, the sizes of textures and surfaces) are missing.
    """

    def __init__(self, device: int) -> None:
        self.name = device_name(device)
        self._device = device

    def __getattr__(self, field: str) -> Any:
        if field == "totalGlobalMem":
            return self._keep(field, memory_info(self._device)[1])
        if field in _TRIPLES:
            return self._keep(field, tuple(device_attribute(a, self._device) for a in _TRIPLES[field]))
        if field in _ATTRIBUTES:
            return self._keep(field, device_attribute(_ATTRIBUTES[field], self._device))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {field!r}")

    def _keep(self, field: str, value: Any) -> Any:
        setattr(self, field, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted(_FIELDS)

    def __repr__(self) -> str:
        return f"<cenote.driver.DeviceProperties of device {self._device}, {self.name}>"


def device_properties(device: int) -> DeviceProperties:
    """Give the properties of a device, under the names of ``cudaDeviceProp``; IndexError if there is no such device."""
    return DeviceProperties(device)


publish(globals())
