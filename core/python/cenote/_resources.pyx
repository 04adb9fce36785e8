"""Memory resources: one Python class per C++ class. Documented in `cenote.mr`."""
from libc.stdint cimport uint64_t, uintptr_t
from libcpp.memory cimport shared_ptr, static_pointer_cast
from libcpp.optional cimport optional

from cenote cimport _libcenote as lib
from cenote._memory_resource cimport (
    DeviceMemoryResource,
    UpstreamResourceAdaptor,
    register_class,
    remember,
    size_argument,
    upstream_argument,
)


cdef class CudaMemoryResource(DeviceMemoryResource):
    """The driver's plain device memory (``cuMemAlloc``), on the current device.

    Freeing waits for all work of the device; put a pool over it.
    """

    def __init__(self):
        with nogil:
            self._resource = static_pointer_cast[lib.memory_resource, lib.cuda_memory_resource](
                lib.make_shared[lib.cuda_memory_resource]())
        remember(self)


cdef class ManagedMemoryResource(DeviceMemoryResource):
    """Managed memory (``cuMemAllocManaged``): one address for host and device, may exceed the device's memory."""

    def __init__(self):
        with nogil:
            self._resource = static_pointer_cast[lib.memory_resource, lib.managed_memory_resource](
                lib.make_shared[lib.managed_memory_resource]())
        remember(self)


cdef class PinnedHostMemoryResource(DeviceMemoryResource):
    """Page-locked host memory (``cuMemHostAlloc``) that every device can use. Slow to allocate; put a pool over it."""

    def __init__(self):
        with nogil:
            self._resource = static_pointer_cast[lib.memory_resource, lib.pinned_host_memory_resource](
                lib.make_shared[lib.pinned_host_memory_resource]())
        remember(self)


cdef class CudaAsyncMemoryResource(DeviceMemoryResource):
    """A pool of the driver's own (``cuMemAllocFromPoolAsync``), stream-ordered, on the current device.

    Parameters
    ----------
    initial_pool_size : int or str, optional
        Bytes that the pool holds from the start; none if not given.
    release_threshold : int or str, optional
        Bytes that the pool keeps when the device is synchronised; all if not given.
    enable_ipc : bool
        Memory can be shared with other processes by file descriptors.
    enable_fabric : bool
        Memory can be shared by fabric handles.

    Raises
    ------
    RuntimeError
        If the device does not support such handles.
    """

    def __init__(self, initial_pool_size=None, release_threshold=None, bint enable_ipc=False,
                 bint enable_fabric=False):
        cdef lib.async_options options
        options.initial_pool_size = size_argument(initial_pool_size).value_or(0)
        options.release_threshold = size_argument(release_threshold).value_or(<uint64_t> -1)
        options.handles.posix_file_descriptor = enable_ipc
        options.handles.fabric = enable_fabric
        with nogil:
            self._resource = static_pointer_cast[lib.memory_resource, lib.cuda_async_memory_resource](
                lib.make_shared[lib.cuda_async_memory_resource](options))
        remember(self)

    def pool_handle(self) -> int:
        """The driver's ``CUmemoryPool``; it lives as long as this resource."""
        return <uintptr_t> (<lib.cuda_async_memory_resource*> self.made()).pool_handle()


cdef class PoolMemoryResource(UpstreamResourceAdaptor):
    """A pool over any resource: memory is taken in large chunks and handed out in blocks, without driver calls.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the chunks come from.
    initial_pool_size : int or str, optional
        Bytes taken at once, a multiple of 256; half of the device's free memory if not given.
    maximum_pool_size : int or str, optional
        Bytes that the pool never exceeds, a multiple of 256; as much as the upstream gives if not given.

    Raises
    ------
    RuntimeError
        If a size is no multiple of 256, or the initial one exceeds the maximum.
    """

    def __init__(self, upstream_mr, initial_pool_size=None, maximum_pool_size=None):
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef optional[size_t] initial = size_argument(initial_pool_size)
        cdef optional[size_t] maximum = size_argument(maximum_pool_size)
        with nogil:
            self._resource = static_pointer_cast[lib.memory_resource, lib.pool_memory_resource](
                lib.make_shared[lib.pool_memory_resource](upstream, initial, maximum))
        self.upstream_mr = upstream_mr
        remember(self)

    def pool_size(self) -> int:
        """Bytes taken from the upstream."""
        return (<lib.pool_memory_resource*> self.made()).pool_size()

    def counters(self) -> dict[str, int]:
        """How often each path was taken since the pool was made.

        Returns
        -------
        dict
            ``allocations`` and where they came from (``from_own_stream``, ``from_ready``, ``from_other_stream``,
            ``from_upstream``, ``from_reclaim``), ``waits`` and ``events`` issued, ``upstream_allocations`` and
            ``upstream_frees``.
        """
        cdef lib.pool_counters c = (<lib.pool_memory_resource*> self.made()).counters()
        return c


register_class("cuda", CudaMemoryResource)
register_class("managed", ManagedMemoryResource)
register_class("pinned", PinnedHostMemoryResource)
register_class("async", CudaAsyncMemoryResource)
register_class("pool", PoolMemoryResource)
