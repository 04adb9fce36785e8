"""Memory resources, the adaptors around them, and which one is current.

A *resource* allocates and frees memory; an *adaptor* is a resource that changes what passes through to its *upstream*.
They are put together as objects or by a specification::

    cenote.mr.StatisticsResourceAdaptor(cenote.mr.PoolMemoryResource(cenote.mr.CudaMemoryResource(), "1GiB"))
    cenote.mr.from_spec("statistics | pool")
"""

from cenote._core.adaptors import (
    AlignedResourceAdaptor,
    GuardResourceAdaptor,
    LimitingResourceAdaptor,
    LoggingResourceAdaptor,
    PrefetchResourceAdaptor,
    ThreadSafeResourceAdaptor,
    TrackingResourceAdaptor,
)
from cenote._core.callbacks import CallbackMemoryResource, FailureCallbackResourceAdaptor
from cenote._core.driver_resources import (
    CudaAsyncManagedMemoryResource,
    CudaAsyncMemoryResource,
    CudaAsyncViewMemoryResource,
    CudaMemoryResource,
    ManagedMemoryResource,
    PinnedHostMemoryResource,
    SamHeadroomMemoryResource,
    SystemMemoryResource,
    VirtualMemoryResource,
)
from cenote._core.memory_resource import DeviceMemoryResource, MemoryState, UpstreamResourceAdaptor
from cenote._core.pools import (
    ArenaMemoryResource,
    BinningMemoryResource,
    FixedSizeMemoryResource,
    Pin,
    PoolCounters,
    PoolMemoryResource,
)
from cenote._core.public_names import publish
from cenote._core.registry import (
    get_current_device_resource,
    get_per_device_resource,
    reset_all_device_resources,
    reset_current_device_resource,
    reset_per_device_resource,
    set_current_device_resource,
    set_per_device_resource,
)
from cenote._core.specification import from_spec, known_specifications
from cenote._core.statistics import StatisticsResourceAdaptor
from cenote.initialization import available_device_memory, is_initialized
from cenote.logs.recording import disable_logging, enable_logging, get_log_filenames

__all__ = [
    "AlignedResourceAdaptor",
    "ArenaMemoryResource",
    "BinningMemoryResource",
    "CallbackMemoryResource",
    "CudaAsyncManagedMemoryResource",
    "CudaAsyncMemoryResource",
    "CudaAsyncViewMemoryResource",
    "CudaMemoryResource",
    "DeviceMemoryResource",
    "FailureCallbackResourceAdaptor",
    "FixedSizeMemoryResource",
    "GuardResourceAdaptor",
    "LimitingResourceAdaptor",
    "LoggingResourceAdaptor",
    "ManagedMemoryResource",
    "MemoryState",
    "Pin",
    "PinnedHostMemoryResource",
    "PoolCounters",
    "PoolMemoryResource",
    "PrefetchResourceAdaptor",
    "SamHeadroomMemoryResource",
    "StatisticsResourceAdaptor",
    "SystemMemoryResource",
    "ThreadSafeResourceAdaptor",
    "TrackingResourceAdaptor",
    "UpstreamResourceAdaptor",
    "VirtualMemoryResource",
    "available_device_memory",
    "disable_logging",
    "enable_logging",
    "from_spec",
    "get_current_device_resource",
    "get_log_filenames",
    "get_per_device_resource",
    "is_initialized",
    "known_specifications",
    "reset_all_device_resources",
    "reset_current_device_resource",
    "reset_per_device_resource",
    "set_current_device_resource",
    "set_per_device_resource",
]

publish(globals())
