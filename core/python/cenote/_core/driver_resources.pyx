"""Resources that take memory from the driver or the host: one Python class per C++ class. Documented in `cenote.mr`."""
from collections.abc import Iterable

from libc.stdint cimport uint64_t, uintptr_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport (
    address_argument,
    int_argument,
    required_size_argument,
    shown_number,
    size_argument,
    small_argument,
)
from cenote._core.memory_resource cimport DeviceMemoryResource, become, register_class


cdef class CudaMemoryResource(DeviceMemoryResource):
    """The driver's plain device memory (``cuMemAlloc``), on the current device.

    Freeing waits for all work of the device; put a pool over it.
    """

    def __init__(self):
        cdef shared_ptr[lib.memory_resource] fresh
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.cuda_memory_resource](
                lib.make_shared[lib.cuda_memory_resource]())
        become(self, fresh)


cdef class ManagedMemoryResource(DeviceMemoryResource):
    """Managed memory (``cuMemAllocManaged``): one address for host and device, may exceed the device's memory."""

    def __init__(self):
        cdef shared_ptr[lib.memory_resource] fresh
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.managed_memory_resource](
                lib.make_shared[lib.managed_memory_resource]())
        become(self, fresh)


cdef class PinnedHostMemoryResource(DeviceMemoryResource):
    """Page-locked host memory (``cuMemHostAlloc``) that every device can use. Slow to allocate; put a pool over it."""

    def __init__(self):
        cdef shared_ptr[lib.memory_resource] fresh
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.pinned_host_memory_resource](
                lib.make_shared[lib.pinned_host_memory_resource]())
        become(self, fresh)


cdef class VirtualMemoryResource(DeviceMemoryResource):
    """Device memory by the driver's virtual memory interface (``cuMemCreate``, ``cuMemMap``), on the current device.

    Each allocation is a page of its own, of a multiple of 2 MiB. Put a pool over it: the pool then maps pages itself
    and wastes the least memory. A device without virtual memory, such as a vGPU, gives plain memory instead, and a pool
    takes chunks of it.

    Parameters
    ----------
    enable_ipc : bool, optional
        Pages can be shared with other processes by file descriptors. If not given, they can where the device has
        those, unless there are fabric handles.
    enable_fabric : bool
        Pages can be shared by fabric handles.
    for_rdma : bool
        A network card will read and write the memory, where the device can be told so.
    peers : iterable of int, "all" or "none", optional
        The other devices that may use the memory, in kernels and copies. If not given, those that the process uses, now
        or later, as far as they can reach this one.

    Raises
    ------
    RuntimeError
        If handles are wanted of a device that has no virtual memory.
    IndexError
        If there is no such device as `peers` names.
    ValueError
        If a device that `peers` names cannot reach this one.
    """

    def __init__(self, enable_ipc=None, bint enable_fabric=False, bint for_rdma=False, peers=None):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef lib.virtual_options options
        if enable_ipc is not None:
            options.ipc = <cbool> enable_ipc
        options.fabric = enable_fabric
        options.for_rdma = for_rdma
        options.peers = peers_argument(peers)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.virtual_memory_resource](
                lib.make_shared[lib.virtual_memory_resource](options))
        become(self, fresh)


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
    peers : iterable of int, "all" or "none", optional
        The other devices that may use the memory, in kernels and copies. If not given, those that the process uses, now
        or later, as far as they can reach this one.

    Raises
    ------
    RuntimeError
        If the device does not support such handles.
    IndexError
        If there is no such device as `peers` names.
    ValueError
        If a device that `peers` names cannot reach this one.
    """

    def __init__(self, initial_pool_size=None, release_threshold=None, bint enable_ipc=False,
                 bint enable_fabric=False, peers=None):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef lib.async_options options
        options.initial_pool_size = size_argument("initial_pool_size", initial_pool_size).value_or(0)
        options.release_threshold = size_argument("release_threshold", release_threshold).value_or(<uint64_t> -1)
        options.handles.posix_file_descriptor = enable_ipc
        options.handles.fabric = enable_fabric
        options.peers = peers_argument(peers)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.cuda_async_memory_resource](
                lib.make_shared[lib.cuda_async_memory_resource](options))
        become(self, fresh)

    def pool_handle(self) -> int:
        """The driver's ``CUmemoryPool``; it lives as long as this resource."""
        return <uintptr_t> (<lib.cuda_async_memory_resource*> self.made()).pool_handle()


cdef class CudaAsyncViewMemoryResource(DeviceMemoryResource):
    """A pool of the driver's that somebody else owns, such as the device's default one, on the current device.

    Parameters
    ----------
    pool_handle : cuda.bindings.runtime.cudaMemPool_t, cuda.bindings.driver.CUmemoryPool or int
        The pool; its owner keeps it alive. Once it is destroyed, allocating raises MemoryError.
    peers : iterable of int, "all" or "none", optional
        Other devices that the pool is opened to, for good: they may use its memory, in kernels and copies. If not
        given, that is as the owner has it.

    Raises
    ------
    ValueError
        If it is no such handle, or a device that `peers` names cannot reach this one.
    IndexError
        If there is no such device as `peers` names.
    RuntimeError
        If the handle is null.
    """

    def __init__(self, pool_handle, peers=None):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef lib.CUmemPoolHandle_st* pool = <lib.CUmemPoolHandle_st*> pool_argument(pool_handle)
        cdef lib.peer_devices opened = peers_argument(() if peers is None else peers)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.cuda_async_view_memory_resource](
                lib.make_shared[lib.cuda_async_view_memory_resource](lib.current_device(), pool, opened))
        become(self, fresh)

    def pool_handle(self) -> int:
        """The driver's ``CUmemoryPool``."""
        return <uintptr_t> (<lib.cuda_async_view_memory_resource*> self.made()).pool_handle()


cdef int peer_argument(object device) except? -1:
    try:
        return small_argument("peers", int_argument("peers", device, "'all', 'none' or the numbers of devices"))
    except OverflowError:
        raise IndexError(f"peers: there is no device {shown_number(device)}") from None


cdef lib.peer_devices peers_argument(object peers) except *:
    """None for the devices in use, "all", "none", or their numbers."""
    cdef lib.peer_devices chosen
    if peers is None:
        return chosen
    if isinstance(peers, str):
        if peers not in ("all", "none"):
            raise ValueError(f"peers must be 'all', 'none' or the numbers of devices, not {peers!r}")
        chosen.which = lib.all_peers if peers == "all" else lib.named_peers
        return chosen
    if not isinstance(peers, Iterable) or isinstance(peers, (bytes, bytearray, memoryview)):
        raise TypeError(f"peers must be 'all', 'none' or the numbers of devices, not {type(peers).__name__}")
    chosen.which = lib.named_peers
    for device in peers:
        chosen.devices.push_back(peer_argument(device))
    return chosen


cdef uintptr_t pool_argument(object handle) except? 0:
    is_handle = type(handle).__name__ in ("cudaMemPool_t", "CUmemoryPool")  # of cuda.bindings, which need not be there
    if not is_handle and (not isinstance(handle, int) or isinstance(handle, bool)):
        raise ValueError("pool_handle must be a cudaMemPool_t or CUmemoryPool of cuda.bindings, or its value as int, "
                         f"not {type(handle).__name__}")
    return address_argument("pool_handle", int(handle))


cdef class CudaAsyncManagedMemoryResource(DeviceMemoryResource):
    """The driver's own pool of managed memory (CUDA 13), stream-ordered, on the current device.

    The pool is the device's default one, shared with everybody in the process who uses it.

    Raises
    ------
    RuntimeError
        If the driver is older than 13.0 or the device has no concurrent managed access.
    """

    def __init__(self):
        cdef shared_ptr[lib.memory_resource] fresh
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.cuda_async_managed_memory_resource](
                lib.make_shared[lib.cuda_async_managed_memory_resource]())
        become(self, fresh)

    def pool_handle(self) -> int:
        """The driver's ``CUmemoryPool``; it lives as long as the process."""
        return <uintptr_t> (<lib.cuda_async_managed_memory_resource*> self.made()).pool_handle()


cdef class SystemMemoryResource(DeviceMemoryResource):
    """Memory of the host's own heap, which the current device uses in place.

    Freeing waits for the work of the stream; put a pool over it.

    Raises
    ------
    RuntimeError
        If the device cannot use any memory of the host (pageable memory access).
    """

    def __init__(self):
        cdef shared_ptr[lib.memory_resource] fresh
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.system_memory_resource](
                lib.make_shared[lib.system_memory_resource]())
        become(self, fresh)


cdef class SamHeadroomMemoryResource(DeviceMemoryResource):
    """System memory that the driver is told to keep on the device only as far as that leaves `headroom` free there.

    Parameters
    ----------
    headroom : int or str
        Bytes of the device's memory to leave to others.

    Raises
    ------
    RuntimeError
        If the device cannot use any memory of the host (pageable memory access).
    """

    def __init__(self, headroom):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef size_t bytes = required_size_argument("headroom", headroom)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.sam_headroom_memory_resource](
                lib.make_shared[lib.sam_headroom_memory_resource](bytes))
        become(self, fresh)


register_class("cuda", CudaMemoryResource)
register_class("managed", ManagedMemoryResource)
register_class("pinned", PinnedHostMemoryResource)
register_class("async", CudaAsyncMemoryResource)
register_class("async_view", CudaAsyncViewMemoryResource)
register_class("async_managed", CudaAsyncManagedMemoryResource)
register_class("virtual", VirtualMemoryResource)
register_class("system", SystemMemoryResource)
register_class("sam_headroom", SamHeadroomMemoryResource)
