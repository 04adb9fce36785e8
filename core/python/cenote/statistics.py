"""What programs allocate: counts of the current resource, of parts of a program, and of functions.

::

    cenote.statistics.enable_statistics()
    with cenote.statistics.profiler(name="load"):
        load()
    print(cenote.statistics.default_profiler_records.report())

The counts are those of a `cenote.mr.StatisticsResourceAdaptor`, wherever it stands in the stack of the current
resource; where there are several, of the outermost. `push_statistics`, `pop_statistics`, `statistics` and `profiler`
open scopes that count what their own thread, or task of asyncio, does, and the tasks that it starts meanwhile.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar, cast

from cenote import mr
from cenote._core.arguments import whole_number
from cenote._core.memory_resource import first_in_stack
from cenote._core.public_names import publish
from cenote._core.registry import devices_with_resource, put_on_default
from cenote._core.statistics import CountingScope, Statistics
from cenote._profiled_function import profiled_function

__all__ = [
    "ProfilerContext",
    "ProfilerRecords",
    "Statistics",
    "default_profiler_records",
    "enable_statistics",
    "get_statistics",
    "pop_statistics",
    "profiler",
    "push_statistics",
    "statistics",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def _counting() -> mr.StatisticsResourceAdaptor | None:
    """Find the outermost statistics adaptor of the current resource."""
    return first_in_stack(mr.get_current_device_resource(), mr.StatisticsResourceAdaptor)


def enable_statistics() -> None:
    """Count what the current resource of every device allocates from now on.

    A device that has no resource yet is counted from its first one on. One that is counted already is left as it is.
    """
    for device in devices_with_resource():
        resource = mr.get_per_device_resource(device)
        if first_in_stack(resource, mr.StatisticsResourceAdaptor) is None:
            mr.set_per_device_resource(device, mr.StatisticsResourceAdaptor(resource))
    put_on_default("statistics")


def get_statistics() -> Statistics | None:
    """Give the counts of the scope that the thread or task is in; None if the current resource is not counted."""
    counting = _counting()
    return None if counting is None else counting.allocation_counts


def push_statistics() -> Statistics | None:
    """Open a scope, whose counts start at nothing.

    Returns
    -------
    Statistics or None
        The counts of the scope around it; None, and nothing is opened, if the current resource is not counted.
    """
    counting = _counting()
    return None if counting is None else counting.push_counters()


def pop_statistics() -> Statistics | None:
    """Close the scope that was opened last; its counts are added to those of the scope around it.

    Returns
    -------
    Statistics or None
        The counts of the scope; None if the current resource is not counted.

    Raises
    ------
    IndexError
        If no scope is open.
    """
    counting = _counting()
    return None if counting is None else counting.pop_counters()


@contextmanager
def statistics() -> Iterator[None]:
    """Count what is allocated in a ``with`` block.

    If the current resource is counted already, the block is a scope of its own. If not, it is counted for the length
    of the block.

    Raises
    ------
    ValueError
        At the end of the block, if the current resource has been changed in it.
    """
    counting = _counting()
    uncounted: mr.DeviceMemoryResource | None = None
    if counting is None:
        uncounted = mr.get_current_device_resource()
        counting = mr.StatisticsResourceAdaptor(uncounted)
        mr.set_current_device_resource(counting)
    current = mr.get_per_device_resource(counting.device)
    scope = CountingScope(counting if uncounted is None else None)
    scope.enter()
    try:
        yield
    finally:
        scope.close()
        if mr.get_per_device_resource(counting.device) != current:
            raise ValueError("the current resource was changed in a block that counts what it allocates")
        if uncounted is not None:
            mr.set_per_device_resource(counting.device, uncounted)


# Guards the records of all ProfilerRecords. The collector may run under it, and a profiled finalizer add a call.
_records_lock = threading.RLock()


def _renew_records_lock() -> None:
    """In a forked child, where the thread that has it may not be there."""
    global _records_lock
    _records_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_records_lock)


class ProfilerRecords:
    """What profiled functions and blocks allocated, by name. May be used from any thread."""

    @dataclass
    class MemoryRecord:
        """What one function or block allocated; in bytes.

        ``memory_total`` is the sum over all calls, ``memory_peak`` the most that one call held at a time.
        """

        num_calls: int = 0
        memory_total: int = 0
        memory_peak: int = 0

        def add(self, memory_total: int, memory_peak: int) -> None:
            """Add one call."""
            total = whole_number("memory_total", memory_total, "a number of bytes as int")
            peak = whole_number("memory_peak", memory_peak, "a number of bytes as int")
            self.num_calls += 1
            self.memory_total += total
            if peak > self.memory_peak:  # and not max(), in which the collector could run, and a finalizer add a call
                self.memory_peak = peak

    def __init__(self) -> None:
        self._records: dict[str, ProfilerRecords.MemoryRecord] = {}

    def add(self, name: str, data: Statistics) -> None:
        """Add one call of the function or block `name`, and what it allocated; TypeError if `data` are no counts."""
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not isinstance(data, Statistics):
            raise TypeError(f"data must be Statistics, not {type(data).__name__}")
        with _records_lock:
            record = self._records.setdefault(name, ProfilerRecords.MemoryRecord())
            record.add(memory_total=data.total_bytes, memory_peak=data.peak_bytes)

    @property
    def records(self) -> dict[str, MemoryRecord]:
        """A copy of the records, by name."""
        with _records_lock:
            return {name: replace(record) for name, record in self._records.copy().items()}

    def report(self, ordered_by: Literal["num_calls", "memory_peak", "memory_total"] = "memory_peak") -> str:
        """Write the records as a table, the largest first.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        columns = ("num_calls", "memory_peak", "memory_total")
        if ordered_by not in columns:
            raise ValueError(f"ordered_by must be one of {', '.join(columns)}, not {ordered_by!r}")
        title = "Memory Profiling\n================\n\n"
        records = sorted(self.records.items(), key=lambda item: (-getattr(item[1], ordered_by), item[0]))
        if not records:
            return title + "No data, maybe profiling wasn't enabled?"
        heads = ("ncalls", "memory_peak", "memory_total")
        rows = [(*(f"{getattr(record, column):,}" for column in columns), name) for name, record in records]
        widths = [max(len(head), *(len(row[i]) for row in rows)) for i, head in enumerate(heads)]
        table = [
            "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
            for row in [(*heads, "filename:lineno(function)"), *rows]
        ]
        legend = (
            "  ncalls        how often the function or block ran\n"
            "  memory_peak   the most bytes that one run held at a time\n"
            "  memory_total  bytes that all runs together allocated\n"
        )
        return f"{title}{legend}\nOrdered by: {ordered_by}\n\n" + "\n".join(table)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.records})"

    def __str__(self) -> str:
        return self.report()


default_profiler_records = ProfilerRecords()
"""Where `profiler` writes to unless it is told otherwise."""


def _describe(function: Callable[..., object]) -> str:
    """``file:line(name)`` of a function; its name alone where there is no source to point at."""
    unwrapped = inspect.unwrap(function)
    name = getattr(unwrapped, "__qualname__", None) or type(unwrapped).__qualname__
    code = getattr(unwrapped, "__code__", None)
    return name if code is None else f"{code.co_filename}:{code.co_firstlineno}({name})"


class ProfilerContext:
    """What `profiler` returns: a decorator and a context manager.

    One may be entered again, and by several threads and tasks.
    """

    def __init__(self, records: ProfilerRecords, name: str) -> None:
        if not isinstance(records, ProfilerRecords):
            raise TypeError(f"records must be ProfilerRecords, not {type(records).__name__}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        self._records = records
        self._name = name
        self._open: list[CountingScope] = []

    def __call__(self, func: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        """Profile each call of a function; its record is called ``file:line(function)`` if `name` is empty.

        A call of a coroutine function or of a generator function lasts until the coroutine or the generator has ended;
        what others do while it is suspended is not counted. It stays such a function.

        Raises
        ------
        TypeError
            If `func` cannot be called.
        """
        if not callable(func):
            raise TypeError(f"func must be callable, not {type(func).__name__}")
        named = ProfilerContext(self._records, self._name or _describe(func))
        return cast("Callable[_Parameters, _Result]", profiled_function(func, named._begin, named._end))

    def _begin(self) -> CountingScope:
        return CountingScope(_counting())

    def _end(self, scope: CountingScope) -> None:
        counted = scope.close()
        if counted is not None:
            self._records.add(self._name, counted)

    def __enter__(self) -> ProfilerContext:
        if not self._name:
            raise ValueError("a profiler that is used as a context manager needs a name")
        scope = self._begin()
        self._open.append(scope)
        scope.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        candidates = self._open.copy()
        # The collector or an event loop may end a block in another context than that in which it began.
        here = [scope for scope in candidates if scope.is_entered()] or candidates[:1]
        if not here:
            raise RuntimeError("this profiler was not entered")
        self._open.remove(here[-1])
        self._end(here[-1])


def profiler(*, records: ProfilerRecords = default_profiler_records, name: str = "") -> ProfilerContext:
    """Record what a function or a block allocates, on its own thread or in its own task of asyncio.

    What the tasks allocate that it starts counts too, also after it has awaited them. Functions may be coroutine
    functions, generator functions and asynchronous ones. A ``with`` block in a generator counts what the caller does
    while the generator is suspended: decorate the generator function instead.

    Nothing is recorded while the current resource is not counted; see `enable_statistics`.

    Parameters
    ----------
    records : ProfilerRecords
        Where to.
    name : str
        The record's name. A decorator may leave it out, a ``with`` block may not.

    Returns
    -------
    ProfilerContext
        ``@profiler()`` before a function, or ``with profiler(name="…"):``.

    Raises
    ------
    TypeError
        If `records` are no `ProfilerRecords`, or `name` is no text.
    """
    return ProfilerContext(records, name)


publish(globals())
