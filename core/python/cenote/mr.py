"""Memory resources, the adaptors around them, and which one is current.

A *resource* allocates and frees memory; an *adaptor* is a resource that changes what passes through to its *upstream*.
They are put together as objects or by a specification::

    cenote.mr.StatisticsResourceAdaptor(cenote.mr.PoolMemoryResource(cenote.mr.CudaMemoryResource(), "1GiB"))
    cenote.mr.from_spec("statistics | pool:initial=1GiB | cuda")
"""

from cenote._adaptors import (
    AlignedResourceAdaptor,
    FailureCallbackResourceAdaptor,
    LimitingResourceAdaptor,
    LoggingResourceAdaptor,
    PrefetchResourceAdaptor,
    StatisticsResourceAdaptor,
    ThreadSafeResourceAdaptor,
    TrackingResourceAdaptor,
)
from cenote._memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor, from_spec, known_specifications
from cenote._registry import (
    get_current_device_resource,
    get_per_device_resource,
    set_current_device_resource,
    set_per_device_resource,
)
from cenote._resources import (
    ArenaMemoryResource,
    BinningMemoryResource,
    CallbackMemoryResource,
    CudaAsyncManagedMemoryResource,
    CudaAsyncMemoryResource,
    CudaAsyncViewMemoryResource,
    CudaMemoryResource,
    FixedSizeMemoryResource,
    ManagedMemoryResource,
    PinnedHostMemoryResource,
    PoolMemoryResource,
    SamHeadroomMemoryResource,
    SystemMemoryResource,
)

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
    "LimitingResourceAdaptor",
    "LoggingResourceAdaptor",
    "ManagedMemoryResource",
    "PinnedHostMemoryResource",
    "PoolMemoryResource",
    "PrefetchResourceAdaptor",
    "SamHeadroomMemoryResource",
    "StatisticsResourceAdaptor",
    "SystemMemoryResource",
    "ThreadSafeResourceAdaptor",
    "TrackingResourceAdaptor",
    "UpstreamResourceAdaptor",
    "from_spec",
    "get_current_device_resource",
    "get_per_device_resource",
    "known_specifications",
    "set_current_device_resource",
    "set_per_device_resource",
]
