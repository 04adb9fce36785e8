"""Memory resources: one Python class per C++ class. Documented in `cenote.mr`."""
import inspect
from collections.abc import Iterable

from libc.stdint cimport uint64_t, uintptr_t
from libcpp.memory cimport make_shared, shared_ptr, static_pointer_cast
from libcpp.optional cimport optional

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, count_argument, int_argument, shown_number, small_argument
from cenote._core.memory_resource cimport (
    DeviceMemoryResource,
    UpstreamResourceAdaptor,
    become,
    collect_calls,
    last_calls,
    register_class,
    resource_argument,
    required_size_argument,
    size_argument,
    upstream_argument,
)
from cenote._core.stream cimport Stream


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
        Other devices that the pool is opened to, for good: they may use its memory, in kernels and copies. If not given,
        that is as the owner has it.

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
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef optional[size_t] initial = size_argument("initial_pool_size", initial_pool_size)
        cdef optional[size_t] maximum = size_argument("maximum_pool_size", maximum_pool_size)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.pool_memory_resource](
                lib.make_shared[lib.pool_memory_resource](upstream, initial, maximum))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def pool_size(self) -> int:
        """Bytes taken from the upstream."""
        return (<lib.pool_memory_resource*> self.made()).pool_size()

    def counters(self) -> dict[str, int]:
        """How often each path was taken since the pool was made.

        Returns
        -------
        dict
            ``allocations`` and where they came from (``from_front_cache``, ``from_own_stream``, ``from_ready``,
            ``from_other_stream``, ``from_upstream``, ``from_reclaim``), ``waits`` and ``events`` issued, ``upstream_allocations`` and
            ``upstream_frees``.
        """
        cdef lib.pool_counters c = (<lib.pool_memory_resource*> self.made()).counters()
        return c


cdef class ArenaMemoryResource(UpstreamResourceAdaptor):
    """A pool that takes all its memory at once and never asks for more.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the memory comes from.
    arena_size : int or str, optional
        Bytes, rounded down to 256; half of the device's free memory if not given.
    dump_log_on_failure : bool
        Append the map of the arena's blocks to ``cenote_arena_memory_dump.log`` in the current folder whenever an
        allocation fails.

    Raises
    ------
    RuntimeError
        If the size is below 1 MiB.
    """

    def __init__(self, upstream_mr, arena_size=None, bint dump_log_on_failure=False):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef optional[size_t] size = size_argument("arena_size", arena_size)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.arena_memory_resource](
                lib.make_shared[lib.arena_memory_resource](upstream, size, dump_log_on_failure))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def arena_size(self) -> int:
        """Bytes that the arena has."""
        return (<lib.arena_memory_resource*> self.made()).arena_size()


cdef class FixedSizeMemoryResource(UpstreamResourceAdaptor):
    """Blocks of one size: an allocation of up to that size gets a whole block, and nothing can fragment.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the blocks' memory comes from.
    block_size : int or str
        Bytes of a block, rounded up to 256. More than that cannot be allocated: MemoryError.
    blocks_to_preallocate : int
        The memory of so many blocks is taken at once, and as much again whenever they are all in use. With 0, memory
        is taken as needed.

    Raises
    ------
    ValueError
        If `block_size` is 0, or no memory has room for so many blocks.
    """

    def __init__(self, upstream_mr, block_size=1 << 20, blocks_to_preallocate=128):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef size_t size = required_size_argument("block_size", block_size)
        cdef size_t blocks = count_argument("blocks_to_preallocate", blocks_to_preallocate)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.fixed_size_memory_resource](
                lib.make_shared[lib.fixed_size_memory_resource](upstream, size, blocks))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def get_block_size(self) -> int:
        """Bytes of a block."""
        return (<lib.fixed_size_memory_resource*> self.made()).block_size()


cdef class BinningMemoryResource(UpstreamResourceAdaptor):
    """Chooses the resource by the size: each bin serves what fits into it and no smaller bin, the upstream the rest.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Serves what is larger than every bin, and gives the bins their memory.
    min_size_exponent, max_size_exponent : int
        Bins of ``2**min_size_exponent``, … ``2**max_size_exponent`` bytes, each a `FixedSizeMemoryResource` that takes
        memory when it is first used. No bins if one of them is -1.

    Raises
    ------
    ValueError
        Unless 0 <= `min_size_exponent` <= `max_size_exponent` <= 62.
    """

    cdef tuple _bin_mrs

    def __cinit__(self, *args, **kwargs):
        self._bin_mrs = ()

    def __init__(self, upstream_mr, min_size_exponent=-1, max_size_exponent=-1):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef int least = small_argument("min_size_exponent", min_size_exponent)
        cdef int most = small_argument("max_size_exponent", max_size_exponent)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            if least == -1 or most == -1:
                fresh = static_pointer_cast[lib.memory_resource, lib.binning_memory_resource](
                    lib.make_shared[lib.binning_memory_resource](upstream))
            else:
                fresh = static_pointer_cast[lib.memory_resource, lib.binning_memory_resource](
                    lib.make_shared[lib.binning_memory_resource](upstream, least, most))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def add_bin(self, allocation_size, bin_resource=None) -> None:
        """Serve sizes up to `allocation_size` from `bin_resource`; a bin of that size that exists already is kept.

        Parameters
        ----------
        allocation_size : int or str
            The largest size of the bin in bytes, rounded up to 256.
        bin_resource : DeviceMemoryResource, optional
            A `FixedSizeMemoryResource` over the upstream, of blocks of that size, if not given.

        Raises
        ------
        ValueError
            If the size is 0, or the resource another device's, or one that stands on this one.
        RuntimeError
            If blocks are in use whose sizes the bin would take over: they could not be freed any more.
        """
        cdef size_t size = required_size_argument("allocation_size", allocation_size)
        cdef shared_ptr[lib.memory_resource] resource
        if bin_resource is not None:
            resource = resource_argument("bin_resource", bin_resource)
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            (<lib.binning_memory_resource*> held.get()).add_bin(size, resource)
            held.reset()
        if bin_resource is None:
            if self.upstream_mr._standing.get() != NULL:
                self._leases.set_users(self._leases.users_of_first())
            return
        self._bin_mrs = (*self._bin_mrs, bin_resource)
        self.hold_lease(resource, bin_resource, resource.use_count() - 1)

    @property
    def bin_mrs(self) -> list:
        """The resources that `add_bin` was given, in that order."""
        self.made()
        return list(self._bin_mrs)


cdef class CallbackMemoryResource(DeviceMemoryResource):
    """Memory from two Python functions, on the current device.

    Parameters
    ----------
    allocate_func : callable
        ``allocate_func(size, stream)`` returns the address of `size` bytes, a multiple of 256, usable on `stream` (a
        `cenote.Stream`).
        One that takes three arguments is called as ``allocate_func(stream, size, alignment)``. It raises MemoryError
        when it has no memory; any other Exception reaches the caller as RuntimeError with the original as its cause,
        and what is no Exception (KeyboardInterrupt, SystemExit) as it is.
    deallocate_func : callable
        ``deallocate_func(ptr, size, stream)``, or with four arguments ``deallocate_func(stream, ptr, size,
        alignment)``. An Exception that it raises is reported through ``sys.unraisablehook``, and the memory counts as
        freed. KeyboardInterrupt and SystemExit reach whoever called for the free, and are reported where nobody did:
        where an object died.

    Raises
    ------
    TypeError
        If one of them cannot be called like that.
    """

    cdef readonly object allocate_func
    cdef readonly object deallocate_func
    cdef object _last_calls

    def __init__(self, allocate_func, deallocate_func):
        cdef shared_ptr[lib.memory_resource] fresh
        aligned = takes_alignment("allocate_func", allocate_func, 2), takes_alignment("deallocate_func",
                                                                                     deallocate_func, 3)
        calls = (allocate_func, deallocate_func, *aligned)
        cdef shared_ptr[lib.python_object] shared = make_shared[lib.python_object](<lib.PyObject*> calls)
        cdef lib.allocate_function allocate = lib.python_allocate_function(shared, call_allocate)
        cdef lib.deallocate_function deallocate = lib.python_free_function(shared, call_deallocate)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.callback_memory_resource](
                lib.make_shared[lib.callback_memory_resource](allocate, deallocate))
        self._calls = shared
        self.allocate_func = allocate_func
        self.deallocate_func = deallocate_func
        become(self, fresh)
        self._last_calls = last_calls(self, self._last_calls)


cdef takes_alignment(str name, object function, int fewest):
    """Whether `function` wants one argument more than `fewest`, the alignment."""
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell
        return False
    for count in (fewest, fewest + 1):
        try:
            signature.bind(*range(count))
            return count != fewest
        except TypeError:
            continue
    raise TypeError(f"{name} must take {fewest} arguments, or {fewest + 1} with the alignment; it takes {signature}")


cdef void* call_allocate(object calls, lib.stream_ref on, size_t bytes) except? NULL:
    cdef object stream = Stream(<uintptr_t> on.value())
    function, _, aligned, _ = calls
    address = function(stream, bytes, _alignment) if aligned else function(bytes, stream)
    return <void*> <uintptr_t> returned_address(function, bytes, address)


cdef size_t returned_address(object function, size_t bytes, object address) except? <size_t> -1:
    """What allocate_func returned; who forgot the `return` is told so."""
    if address is None:
        raise TypeError(f"allocate_func must return the address of {bytes} bytes as int, not None: "
                        f"{function!r} returned nothing (to say that there is no memory, raise MemoryError)")
    return address_argument("what allocate_func returns", address)


cdef void call_deallocate(object calls, lib.stream_ref on, void* pointer, size_t bytes) except *:
    cdef object stream = Stream(<uintptr_t> on.value())
    _, function, _, aligned = calls
    if aligned:
        function(stream, <uintptr_t> pointer, bytes, _alignment)
    else:
        function(<uintptr_t> pointer, bytes, stream)


_alignment = 256  # what the functions are asked for; more is made of it in C++
collect_calls(CallbackMemoryResource)

register_class("callback", CallbackMemoryResource)
register_class("cuda", CudaMemoryResource)
register_class("managed", ManagedMemoryResource)
register_class("pinned", PinnedHostMemoryResource)
register_class("async", CudaAsyncMemoryResource)
register_class("async_view", CudaAsyncViewMemoryResource)
register_class("async_managed", CudaAsyncManagedMemoryResource)
register_class("system", SystemMemoryResource)
register_class("sam_headroom", SamHeadroomMemoryResource)
register_class("pool", PoolMemoryResource)
register_class("arena", ArenaMemoryResource)
register_class("fixed_size", FixedSizeMemoryResource)
register_class("binning", BinningMemoryResource)
