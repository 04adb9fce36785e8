"""Resource adaptors, but those that count or call functions: one class per C++ class. Documented in `cenote.mr`."""
import logging
import os

from libcpp cimport bool
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport bytes_argument, required_size_argument
from cenote._core.memory_resource cimport UpstreamResourceAdaptor, become, register_class, upstream_argument


cdef class LoggingResourceAdaptor(UpstreamResourceAdaptor):
    """Writes one line of CSV for each allocation and free, in RMM's form.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is logged.
    log_file_name : str or os.PathLike, optional
        The file; ``.dev<device>`` is put before its extension, and the number of the process in place of ``%p``. It is
        begun anew, also for other adaptors of this process that write it: they go on writing to it, line by line. The
        environment variable ``CENOTE_LOG_FILE`` if not given, or else ``RMM_LOG_FILE``.

    Raises
    ------
    TypeError
        If `log_file_name` is no path.
    ValueError
        If none of them names a file, or an adaptor in the stack of `upstream_mr` writes it.
    RuntimeError
        If the file cannot be opened, or another process is writing it.
    """

    def __init__(self, upstream_mr, log_file_name=None):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef lib.string name = b"" if log_file_name is None else path_argument(log_file_name)
        fresh = static_pointer_cast[lib.memory_resource, lib.logging_resource_adaptor](
            lib.make_shared[lib.logging_resource_adaptor](upstream, name))
        self.upstream_mr = upstream_mr
        become(self, fresh)

    def flush(self) -> None:
        """Write out the lines that are still buffered."""
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            (<lib.logging_resource_adaptor*> held.get()).flush()
            held.reset()

    def get_file_name(self) -> str:
        """The absolute path that is written, with the device in it."""
        cdef bytes name = (<lib.logging_resource_adaptor*> self.made()).file_name()
        return os.fsdecode(name)


def log_path(log_file_name) -> str:
    """`log_file_name` as text; raises as `LoggingResourceAdaptor` does for what cannot be the name of a file."""
    return os.fsdecode(path_argument(log_file_name))


cdef bytes path_argument(object path):
    """`log_file_name` as the system has it; TypeError for what is no text and no os.PathLike."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"log_file_name must be a str or os.PathLike, not {type(path).__name__}")
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"log_file_name cannot be the name of a file: {path!r}") from None
    if b"\0" in encoded:
        raise ValueError(f"log_file_name cannot have a null character: {path!r}")
    return encoded


cdef class TrackingResourceAdaptor(UpstreamResourceAdaptor):
    """Remembers what was allocated and not yet freed, and where from.

    A free of a wrong size or of an unknown pointer is reported on stderr; so is what is outstanding when the adaptor
    ends.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is tracked.
    capture_stacks : bool, default False
        Whether to remember the Python and C++ frames of each allocation. Costs tens of microseconds and some kilobytes
        for each.
    """

    def __init__(self, upstream_mr, bool capture_stacks=False):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        fresh = static_pointer_cast[lib.memory_resource, lib.tracking_resource_adaptor](
            lib.make_shared[lib.tracking_resource_adaptor](upstream, capture_stacks, lib.python_interpreter()))
        self.upstream_mr = upstream_mr
        become(self, fresh)

    def get_allocated_bytes(self) -> int:
        """The bytes that are outstanding, as requested."""
        cdef size_t allocated
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            allocated = (<lib.tracking_resource_adaptor*> held.get()).allocated_bytes()
            held.reset()
        return allocated

    def get_outstanding_allocations_str(self) -> str:
        """Each outstanding allocation in order of allocation, with its stack if captured; empty if there is none."""
        cdef lib.string text
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            text = (<lib.tracking_resource_adaptor*> held.get()).outstanding_allocations_str()
            held.reset()
        return text.decode("utf-8", "replace")

    def leak_report(self) -> str:
        """What is outstanding by where it comes from: count and bytes, most bytes first; empty if there is nothing."""
        cdef lib.string text
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            text = (<lib.tracking_resource_adaptor*> held.get()).leak_report()
            held.reset()
        return text.decode("utf-8", "replace")

    def log_outstanding_allocations(self) -> None:
        """Log `get_outstanding_allocations_str` to the logger ``cenote`` at level DEBUG, if anything is outstanding."""
        self.made()
        logger = logging.getLogger("cenote")
        if logger.isEnabledFor(logging.DEBUG):
            outstanding = self.get_outstanding_allocations_str()
            if outstanding:
                logger.debug("Outstanding allocations:\n%s", outstanding)


cdef class LimitingResourceAdaptor(UpstreamResourceAdaptor):
    """Hands out no more than a limit of bytes, whatever the upstream has.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is limited.
    allocation_limit : int or str
        In bytes, or a text such as ``"1GiB"``. Each allocation counts as its bytes rounded up to a multiple of 256.
    """

    def __init__(self, upstream_mr, allocation_limit):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef size_t limit = required_size_argument("allocation_limit", allocation_limit)
        fresh = static_pointer_cast[lib.memory_resource, lib.limiting_resource_adaptor](
            lib.make_shared[lib.limiting_resource_adaptor](upstream, limit))
        self.upstream_mr = upstream_mr
        become(self, fresh)

    def get_allocated_bytes(self) -> int:
        """The bytes that count: handed out and not yet freed, each allocation rounded up."""
        return (<lib.limiting_resource_adaptor*> self.made()).allocated_bytes()

    def get_allocation_limit(self) -> int:
        """The limit, in bytes."""
        return (<lib.limiting_resource_adaptor*> self.made()).allocation_limit()


cdef class PrefetchResourceAdaptor(UpstreamResourceAdaptor):
    """Moves each allocation to its device before it is used, in stream order: for managed memory.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates. Memory that does not move is left alone.
    """

    def __init__(self, upstream_mr):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        fresh = static_pointer_cast[lib.memory_resource, lib.prefetch_resource_adaptor](
            lib.make_shared[lib.prefetch_resource_adaptor](upstream))
        self.upstream_mr = upstream_mr
        become(self, fresh)


cdef class AlignedResourceAdaptor(UpstreamResourceAdaptor):
    """Gives allocations of a size and above a larger alignment than they ask for.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates.
    alignment : int, default 256
        A power of two, in bytes.
    threshold : int, default 0
        Allocations of at least so many bytes are aligned.

    Raises
    ------
    ValueError
        If `alignment` is no power of two.
    """

    def __init__(self, upstream_mr, alignment=256, threshold=0):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef size_t aligned = bytes_argument("alignment", alignment)
        cdef size_t least = bytes_argument("threshold", threshold)
        fresh = static_pointer_cast[lib.memory_resource, lib.aligned_resource_adaptor](
            lib.make_shared[lib.aligned_resource_adaptor](upstream, aligned, least))
        self.upstream_mr = upstream_mr
        become(self, fresh)


cdef class GuardResourceAdaptor(UpstreamResourceAdaptor):
    """Finds writes outside of blocks, by guard bytes around each: a checked mode, for programs under test.

    A free waits for its stream and looks at the block's guards; what was written to them is reported to the logger
    ``cenote``, or on stderr. Blocks that are allocated or freed on a stream in a capture are not looked at.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates, each time two guards more. If a `TrackingResourceAdaptor` that captures stacks is
        in it, reports say where a block was allocated.
    guard_bytes : int, default 256
        The size of each guard: before a block, and from the byte after its last one on.

    Raises
    ------
    ValueError
        If `guard_bytes` is 0 or above 16 MiB.
    """

    def __init__(self, upstream_mr, guard_bytes=256):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef size_t size = bytes_argument("guard_bytes", guard_bytes)
        fresh = static_pointer_cast[lib.memory_resource, lib.guard_resource_adaptor](
            lib.make_shared[lib.guard_resource_adaptor](upstream, size))
        self.upstream_mr = upstream_mr
        become(self, fresh)

    @property
    def guard_bytes(self) -> int:
        """The size of each guard, in bytes."""
        return (<lib.guard_resource_adaptor*> self.made()).guard_bytes()

    @property
    def overruns_found(self) -> int:
        """How many blocks were written outside of, as far as frees and `find_overruns` have seen, each counted once."""
        return (<lib.guard_resource_adaptor*> self.made()).overruns_found()

    def find_overruns(self) -> list[str]:
        """Look at every block that is outstanding, after all work of the device; it is waited for.

        Returns
        -------
        list of str
            For each block that was written outside of: its address and size, how many bytes are wrong, the offset of
            the first one from the block's start, and where it was allocated if that is known.

        Raises
        ------
        RuntimeError
            A stream of the device is known to be captured.
        """
        cdef lib.vector[lib.overrun] found
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            found = (<lib.guard_resource_adaptor*> held.get()).find_overruns()
            held.reset()
        return [one.text().decode("utf-8", "replace") for one in found]


cdef class ThreadSafeResourceAdaptor(UpstreamResourceAdaptor):
    """Lets one thread at a time into its upstream: for a resource of the program's own. cenote's need none.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates. What its functions do, and what Python's collector does in them, may come back
        to this adaptor: the thread that is inside does not wait for itself.
    """

    def __init__(self, upstream_mr):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        fresh = static_pointer_cast[lib.memory_resource, lib.thread_safe_resource_adaptor](
            lib.make_shared[lib.thread_safe_resource_adaptor](upstream))
        self.upstream_mr = upstream_mr
        become(self, fresh)


register_class("logging", LoggingResourceAdaptor)
register_class("tracking", TrackingResourceAdaptor)
register_class("limiting", LimitingResourceAdaptor)
register_class("prefetch", PrefetchResourceAdaptor)
register_class("aligned", AlignedResourceAdaptor)
register_class("guard", GuardResourceAdaptor)
register_class("thread_safe", ThreadSafeResourceAdaptor)
