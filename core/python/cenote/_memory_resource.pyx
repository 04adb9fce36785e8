"""Memory resources and adaptors: one Python class per C++ class. Documented in `cenote.mr`."""
from operator import index
from weakref import WeakValueDictionary

from cython.operator cimport dereference
from libc.stdint cimport uint64_t, uintptr_t
from libcpp.memory cimport shared_ptr, static_pointer_cast
from libcpp.optional cimport make_optional, nullopt, optional

from cenote cimport _libcenote as lib
from cenote._stream cimport Stream, as_stream

from cenote._stream import DEFAULT_STREAM
from cenote.statistics import Statistics

# Which Python object stands for a C++ resource: the one that made it, as long as anybody holds it.
_objects = WeakValueDictionary()


cdef object figure(optional[size_t] bytes):
    """An int, or None where the figure is unknown."""
    return bytes.value() if bytes.has_value() else None


cdef optional[size_t] size_argument(object size) except *:
    """A number of bytes from None, an int, or a text such as "1GiB"."""
    cdef optional[size_t] parsed
    if size is None:
        return parsed
    if isinstance(size, str):
        parsed = lib.parse_bytes(size.encode())
        if not parsed.has_value():
            raise ValueError(f"Could not parse {size!r} as a number of bytes: write 4096, '512MiB' or '1.5 GB'")
        return parsed
    return make_optional[size_t](<size_t> index(size))


cdef object statistics_of(lib.allocation_counters c):
    return Statistics(c.bytes.current, c.count.current, c.bytes.peak, c.count.peak, c.bytes.total, c.count.total)


cdef class DeviceMemoryResource:
    """What every memory resource can do. Resources are made by the classes that derive from this one."""

    def __init__(self, *args, **kwargs):
        raise TypeError("DeviceMemoryResource is the common base; make a CudaMemoryResource, PoolMemoryResource, …")

    def __cinit__(self, *args, **kwargs):
        pass  # Cython 3.3.0 needs one in a base that has __dealloc__

    def __dealloc__(self):
        # The last owner of a pool waits for the device, which may wait for a thread that needs the GIL.
        with nogil:
            self._resource.reset()

    cdef lib.memory_resource* made(self) except NULL nogil:
        """The C++ resource; RuntimeError if ``__init__`` has not made it."""
        if self._resource.get() == NULL:
            with gil:
                raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return self._resource.get()

    def allocate(self, size_t nbytes, stream=DEFAULT_STREAM) -> int:
        """Allocate device memory in stream order.

        Parameters
        ----------
        nbytes : int
            Size in bytes. 0 gives the null pointer, 0.
        stream : Stream or any framework's stream
            The memory is usable by work queued on it from now on.

        Returns
        -------
        int
            The address, a multiple of 256.

        Raises
        ------
        OutOfMemoryError
            The resource has no memory to give. It is a MemoryError and carries the figures.
        CudaError
            The driver failed for another reason.
        """
        cdef Stream on = as_stream(stream)
        cdef void* pointer
        with nogil:
            pointer = self.made().allocate(on._handle, nbytes)
        return <uintptr_t> pointer

    def deallocate(self, uintptr_t ptr, size_t nbytes, stream=DEFAULT_STREAM) -> None:
        """Free memory in stream order.

        Parameters
        ----------
        ptr : int
            What `allocate` returned.
        nbytes : int
            The size that it was allocated with, in bytes.
        stream : Stream or any framework's stream
            Work queued on it so far may still use the memory.
        """
        cdef Stream on = as_stream(stream)
        with nogil:
            self.made().deallocate(on._handle, <void*> ptr, nbytes)

    @property
    def device(self) -> int:
        """The device whose memory this is."""
        return self.made().device()

    @property
    def specification(self) -> str:
        """The whole stack, outermost first, such as ``"statistics | pool:max=8GiB | cuda"``."""
        return lib.describe(dereference(self.made())).decode()

    @property
    def is_host_accessible(self) -> bool:
        """Whether the host can read and write the memory."""
        return self.made().is_host_accessible()

    def state(self) -> dict:
        """The figures of the resource, in bytes; None for what it does not know.

        Returns
        -------
        dict
            ``in_use``, ``held``, ``limit``, ``largest_free``, ``device_free``, ``device_total``.
        """
        cdef lib.memory_state s
        with nogil:
            s = self.made().state()
        return {
            "in_use": figure(s.in_use),
            "held": figure(s.held),
            "limit": figure(s.limit),
            "largest_free": figure(s.largest_free),
            "device_free": figure(s.device_free),
            "device_total": figure(s.device_total),
        }

    def trim(self, size_t keep_bytes=0) -> int:
        """Give unused memory back towards the device until at most `keep_bytes` are held.

        Returns
        -------
        int
            The bytes given back.
        """
        cdef size_t released
        with nogil:
            released = self.made().trim(keep_bytes)
        return released

    def check(self) -> None:
        """Verify the bookkeeping of the whole stack; RuntimeError names the invariant that does not hold."""
        with nogil:
            self.made().check()

    def __eq__(self, other) -> bool:
        """Whether both stand for the same resource."""
        return (isinstance(other, DeviceMemoryResource)
                and (<DeviceMemoryResource> other)._resource.get() == self._resource.get())

    def __hash__(self) -> int:
        return hash(<uintptr_t> self._resource.get())

    def __repr__(self) -> str:
        return f"<cenote.mr.{type(self).__name__} '{self.specification}' on device {self.device}>"


cdef class UpstreamResourceAdaptor(DeviceMemoryResource):
    """A resource that stands on another one, `upstream_mr`, and keeps it alive."""

    def get_upstream(self) -> DeviceMemoryResource:
        """The resource under this one."""
        return self.upstream_mr


cdef shared_ptr[lib.memory_resource] upstream_argument(object upstream_mr) except *:
    if not isinstance(upstream_mr, DeviceMemoryResource):
        raise TypeError(f"Argument `upstream_mr` must be a memory resource, not {type(upstream_mr).__name__}")
    return (<DeviceMemoryResource> upstream_mr)._resource


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


cdef class StatisticsResourceAdaptor(UpstreamResourceAdaptor):
    """Counts what passes through: bytes and allocations, current, peak and total.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is counted.
    """

    def __init__(self, upstream_mr):
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        self._resource = static_pointer_cast[lib.memory_resource, lib.statistics_resource_adaptor](
            lib.make_shared[lib.statistics_resource_adaptor](upstream))
        self.upstream_mr = upstream_mr
        remember(self)

    @property
    def allocation_counts(self) -> Statistics:
        """The counters on top of the stack."""
        return statistics_of((<lib.statistics_resource_adaptor*> self.made()).counters())

    def push_counters(self) -> Statistics:
        """Start fresh counters on top; return those that were there."""
        return statistics_of((<lib.statistics_resource_adaptor*> self.made()).push_counters())

    def pop_counters(self) -> Statistics:
        """Take the counters on top off, fold them into those below, and return them; IndexError for the last."""
        return statistics_of((<lib.statistics_resource_adaptor*> self.made()).pop_counters())


cdef class LoggingResourceAdaptor(UpstreamResourceAdaptor):
    """Writes one line of CSV for each allocation and free, in RMM's form.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is logged.
    log_file_name : str or os.PathLike, optional
        The file, truncated; ``.dev<device>`` is put before its extension. The environment variable
        ``CENOTE_LOG_FILE`` if not given.

    Raises
    ------
    ValueError
        If neither names a file.
    RuntimeError
        If the file cannot be opened.
    """

    def __init__(self, upstream_mr, log_file_name=None):
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef lib.string name = b"" if log_file_name is None else str(log_file_name).encode()
        self._resource = static_pointer_cast[lib.memory_resource, lib.logging_resource_adaptor](
            lib.make_shared[lib.logging_resource_adaptor](upstream, name))
        self.upstream_mr = upstream_mr
        remember(self)

    def flush(self) -> None:
        """Write out the lines that are still buffered."""
        with nogil:
            (<lib.logging_resource_adaptor*> self.made()).flush()

    def get_file_name(self) -> str:
        """The absolute path that is written, with the device in it."""
        return (<lib.logging_resource_adaptor*> self.made()).file_name().decode()


_classes = {
    "cuda": CudaMemoryResource,
    "managed": ManagedMemoryResource,
    "pinned": PinnedHostMemoryResource,
    "async": CudaAsyncMemoryResource,
    "pool": PoolMemoryResource,
    "statistics": StatisticsResourceAdaptor,
    "logging": LoggingResourceAdaptor,
}


cdef remember(DeviceMemoryResource resource):
    _objects[<uintptr_t> resource._resource.get()] = resource


cdef DeviceMemoryResource wrap(shared_ptr[lib.memory_resource] resource):
    """The Python object of a C++ resource: the one that is known, else a new one of the class of its kind."""
    cdef DeviceMemoryResource wrapped
    known = _objects.get(<uintptr_t> resource.get())
    if known is not None and (<DeviceMemoryResource> known)._resource.get() == resource.get():
        return known
    other = UpstreamResourceAdaptor if resource.get().upstream().get() != NULL else DeviceMemoryResource
    cls = _classes.get(resource.get().kind().decode(), other)  # C++ programs may have kinds of their own
    wrapped = cls.__new__(cls)
    wrapped._resource = resource
    if issubclass(cls, UpstreamResourceAdaptor):
        (<UpstreamResourceAdaptor> wrapped).upstream_mr = wrap(resource.get().upstream())
    remember(wrapped)
    return wrapped


def from_spec(str text, device=None) -> DeviceMemoryResource:
    """Make the resources that a specification describes.

    Parameters
    ----------
    text : str
        Resources, outermost first, such as ``"statistics | pool:initial=1GiB,max=50% | cuda"``. Sizes are in bytes, or
        have a unit (KB = 1000, KiB = 1024), or are a percentage of the device's free memory. A chain that ends with a
        resource that needs an upstream stands on ``cuda``.
    device : int, optional
        The device; the current one if not given.

    Returns
    -------
    DeviceMemoryResource
        The outermost one.

    Raises
    ------
    ValueError
        Names the word that is wrong and the words that are known.
    """
    cdef lib.string specification = text.encode()
    cdef shared_ptr[lib.memory_resource] resource
    cdef bint given = device is not None
    cdef int on = device if given else 0
    with nogil:
        resource = lib.make_resource(specification, on if given else lib.current_device())
    return wrap(resource)


def known_specifications() -> str:
    """Each resource that a specification can name, with its parameters, one a line."""
    return lib.known_specifications().decode()
