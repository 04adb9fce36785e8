"""Resource adaptors: one Python class per C++ class. Documented in `cenote.mr`."""
import inspect
import logging
import os
import sys
from contextvars import ContextVar

cimport cython
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport bytes_argument, count_argument
from cenote._core.memory_resource cimport (
    UpstreamResourceAdaptor,
    become,
    collect_calls,
    last_calls,
    register_class,
    required_size_argument,
    upstream_argument,
)
from cenote._core.stream cimport Stream

from cenote.statistics import Statistics


cdef object statistics_of(lib.allocation_counters c):
    return Statistics(c.bytes.current, c.count.current, c.bytes.peak, c.count.peak, c.bytes.total, c.count.total)


# The scopes that the running context is in, outermost first: a task of asyncio has a context of its own, and inherits
# the scopes of whoever starts it. Scopes that others closed may still be among them.
_scopes = ContextVar("cenote.statistics.scopes", default=())


cdef set_scopes(tuple scopes):
    _scopes.set(scopes)
    lib.forget_scopes()


cdef int read_scopes(lib.counting_scopes* into) except -1:
    for scope in <tuple> _scopes.get():
        if (<CountingScope> scope)._scope.get() != NULL:
            into.push_back((<CountingScope> scope)._scope)
    return 0


lib.find_python_scopes(read_scopes)


@cython.final
cdef class CountingScope:
    """What a part of a program allocates while it is in this scope: the ground of `cenote.statistics`.

    `enter` and `leave` may follow one another, for a part that runs bit by bit, such as a generator. The scopes that it
    enters itself meanwhile are kept for its next bit.

    Parameters
    ----------
    adaptor : StatisticsResourceAdaptor, optional
        What counts; nothing does if not given.
    """

    cdef shared_ptr[lib.counting_scope] _scope
    cdef tuple _inner

    def __cinit__(self, StatisticsResourceAdaptor adaptor=None):
        self._inner = ()
        if adaptor is not None:
            self._scope = (<lib.statistics_resource_adaptor*> adaptor.made()).open_scope()

    cdef bint is_open_in(self, StatisticsResourceAdaptor adaptor):
        return self._scope.get() != NULL and (<lib.statistics_resource_adaptor*> adaptor.made()).owns(
            dereference(self._scope))

    def enter(self) -> None:
        """Be in this scope, within those that the running context is in."""
        set_scopes((*[scope for scope in _scopes.get() if not (<CountingScope> scope).is_over()], self, *self._inner))
        self._inner = ()

    def leave(self) -> None:
        """Be no longer in it, nor in those that were entered since and not left."""
        cdef tuple scopes = _scopes.get()
        for place in range(len(scopes) - 1, -1, -1):
            if scopes[place] is self:
                self._inner = scopes[place + 1:]
                return set_scopes(scopes[:place])

    def is_entered(self) -> bool:
        """Whether the running context is in it."""
        return any([scope is self for scope in _scopes.get()])

    cdef bint is_over(self):
        return self._scope.get() != NULL and not self._scope.get().is_open()

    def close(self) -> Statistics | None:
        """Leave it for good; what was counted, or None where nothing counts. IndexError if it was closed already."""
        cdef tuple scopes = _scopes.get()
        if self.is_entered():
            set_scopes(tuple([scope for scope in scopes if scope is not self]))
        if self._scope.get() == NULL:
            return None
        return statistics_of(self._scope.get().close())


cdef class StatisticsResourceAdaptor(UpstreamResourceAdaptor):
    """Counts what passes through: bytes and allocations, current, peak and total.

    The base counters count what every thread does. A thread, or a task of asyncio, may start scopes of its own, which
    count what it does, and what the tasks do that it starts meanwhile.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that is counted.
    """

    def __init__(self, upstream_mr):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        fresh = static_pointer_cast[lib.memory_resource, lib.statistics_resource_adaptor](
            lib.make_shared[lib.statistics_resource_adaptor](upstream))
        self.upstream_mr = upstream_mr
        become(self, fresh)

    @property
    def allocation_counts(self) -> Statistics:
        """The counters of the last scope that the calling thread or task is in; the base counters if it is in none."""
        return statistics_of((<lib.statistics_resource_adaptor*> self.made()).counters())

    def push_counters(self) -> Statistics:
        """Start a scope of the thread or task, which counts from zero; return the counters that it saw until now."""
        before = self.allocation_counts
        CountingScope(self).enter()
        return before

    def pop_counters(self) -> Statistics:
        """End the last scope of the thread or task, and return what it has counted; IndexError if it has none."""
        for scope in reversed(<tuple> _scopes.get()):
            if (<CountingScope> scope).is_open_in(self):
                return scope.close()
        return statistics_of((<lib.statistics_resource_adaptor*> self.made()).pop_counters())


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
        return (<lib.logging_resource_adaptor*> self.made()).file_name().decode(sys.getfilesystemencoding(), "surrogateescape")


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
        """Each outstanding allocation in the order of allocation, with its stack if captured; empty if there is none."""
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


cdef bool ask_with_bytes(object calls, size_t bytes, lib.stream_ref stream, size_t tries) except *:
    callback, = calls
    return callback(bytes)


cdef bool ask_with_stream_and_try(object calls, size_t bytes, lib.stream_ref stream, size_t tries) except *:
    callback, = calls
    return callback(bytes, Stream(<uintptr_t> stream.value()), tries)


cdef object takes(object signature, int count):
    """Whether a function of that signature can be called with so many arguments."""
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


cdef lib.failure_callback_body body_for(object callback) except *:
    """How to call it: with the bytes alone if it can be, as RMM does, else with the bytes, the stream and the try."""
    if not callable(callback):
        raise TypeError(f"Argument `callback` must be callable, not {type(callback).__name__}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # some of C's functions have none
        return ask_with_bytes
    if takes(signature, 1):
        return ask_with_bytes
    if takes(signature, 3):
        return ask_with_stream_and_try
    raise TypeError("Argument `callback` must take one argument (nbytes) or three (nbytes, stream, try number)")


cdef class FailureCallbackResourceAdaptor(UpstreamResourceAdaptor):
    """Asks a function for help when memory ran out, and tries again.

    When the upstream has no memory it is first told to give unused memory back, and asked again if it did. Then the
    callback is called, which may free memory or spill. After `max_tries` calls memory has run out.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates.
    callback : callable
        Called as ``callback(nbytes)``; if it needs three arguments, as ``callback(nbytes, stream, tries)`` with a
        `Stream` and the number of the call for this allocation, from 1. True means try again, False give up. A
        MemoryError that it raises reaches the caller, and so does what is no Exception, such as KeyboardInterrupt; any
        other exception does as the cause of a RuntimeError.
    max_tries : int, default 64
        How often it is called at the most for one allocation.

    Raises
    ------
    TypeError
        If `callback` cannot be called so.
    """

    cdef object _callback
    cdef object _last_calls

    def __init__(self, upstream_mr, callback, max_tries=64):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef lib.failure_callback_body body = body_for(callback)
        cdef size_t tries = count_argument("max_tries", max_tries)
        calls = (callback,)
        cdef shared_ptr[lib.python_object] shared = lib.make_shared[lib.python_object](<lib.PyObject*> calls)
        fresh = static_pointer_cast[lib.memory_resource, lib.failure_callback_resource_adaptor](
            lib.make_shared[lib.failure_callback_resource_adaptor](
                upstream, lib.python_function(shared, body), tries))
        self._calls = shared
        self.upstream_mr = upstream_mr
        self._callback = callback
        become(self, fresh)
        self._last_calls = last_calls(self, self._last_calls)


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


collect_calls(FailureCallbackResourceAdaptor)

register_class("statistics", StatisticsResourceAdaptor)
register_class("logging", LoggingResourceAdaptor)
register_class("tracking", TrackingResourceAdaptor)
register_class("limiting", LimitingResourceAdaptor)
register_class("failure_callback", FailureCallbackResourceAdaptor)
register_class("prefetch", PrefetchResourceAdaptor)
register_class("aligned", AlignedResourceAdaptor)
register_class("guard", GuardResourceAdaptor)
register_class("thread_safe", ThreadSafeResourceAdaptor)
