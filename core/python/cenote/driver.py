"""The CUDA driver and its devices, as seen by this process.

The driver is loaded by the first call that needs it, never by an import. Where there is none, that call raises
`cenote.DriverUnavailableError`. The environment variable ``CENOTE_CUDA_DRIVER`` names another library; ``sim`` names
the simulated device.
"""

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
from cenote.device_properties import DeviceProperties, device_properties

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
