"""Counts of what passes through a resource, and of parts of a program. Documented in `cenote.statistics`."""
from contextvars import ContextVar
from dataclasses import dataclass

cimport cython
from cython.operator cimport dereference
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote._core cimport libcenote as lib
from cenote._core.memory_resource cimport UpstreamResourceAdaptor, become, register_class, upstream_argument


@dataclass(frozen=True)
class Statistics:
    """Bytes and allocations, as requested; negative where more was freed than allocated since the count began."""

    current_bytes: int
    current_count: int
    peak_bytes: int
    peak_count: int
    total_bytes: int
    total_count: int


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


register_class("statistics", StatisticsResourceAdaptor)
