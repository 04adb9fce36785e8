"""Resource adaptors: one Python class per C++ class. Documented in `cenote.mr`."""
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote cimport _libcenote as lib
from cenote._memory_resource cimport UpstreamResourceAdaptor, register_class, remember, upstream_argument

from cenote.statistics import Statistics


cdef object statistics_of(lib.allocation_counters c):
    return Statistics(c.bytes.current, c.count.current, c.bytes.peak, c.count.peak, c.bytes.total, c.count.total)


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


register_class("statistics", StatisticsResourceAdaptor)
register_class("logging", LoggingResourceAdaptor)
