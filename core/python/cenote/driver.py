"""The CUDA driver and its devices, as seen by this process.

The driver is loaded by the first call that needs it, never by an import. Where there is none, that call raises
`cenote.DriverUnavailableError`. The environment variable ``CENOTE_CUDA_DRIVER`` names another library; ``sim`` names
the simulated device.
"""

from cenote._driver import (
    compute_capability,
    current_device,
    device_count,
    device_name,
    is_loaded,
    is_simulated,
    library,
    memory_info,
    synchronize,
    version,
)

__all__ = [
    "compute_capability",
    "current_device",
    "device_count",
    "device_name",
    "is_loaded",
    "is_simulated",
    "library",
    "memory_info",
    "synchronize",
    "version",
]
