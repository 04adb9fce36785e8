"""Values that come to a device which has no room for them: they stay on the host, in pinned memory.

::

    read a spilled value ──► pool: no memory, nothing left to evict ──► pinned host memory, which the device reads

Without it a worker could not send, or use in one task, more than its device has: Dask asks for the same values again
and again. Work on such a value goes over the bus, and is slower; once it has been evicted and read again, where there
is room, it is on the device.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import cenote
from cenote import mr

__all__ = ["bytes_on_the_host", "or_on_the_host", "read_back_on_the_host_without_room"]

_logger = logging.getLogger("distributed.worker.cenote")
_Read = TypeVar("_Read", bound=Callable[..., Any])


@functools.cache
def _pinned() -> mr.StatisticsResourceAdaptor:
    return mr.StatisticsResourceAdaptor(mr.PinnedHostMemoryResource())


def bytes_on_the_host() -> int:
    """Give the bytes of all values that lie on the host for want of room."""
    return _pinned().allocation_counts.current_bytes if _pinned.cache_info().currsize else 0


def or_on_the_host(read: _Read) -> _Read:
    """Give a function that makes a value anew in pinned host memory where the device has no room for it."""

    @functools.wraps(read)
    def read_anyway(*args: Any) -> Any:
        try:
            return read(*args)
        except MemoryError as error:  # also of CuPy
            _logger.info("a value is read into pinned host memory, as the device has no room: %s", error)
        with cenote.use(_pinned()):
            return read(*args)

    return read_anyway  # type: ignore[return-value]


def read_back_on_the_host_without_room(data: Any) -> Callable[[], None]:
    """Have a worker's data read what it has spilled in this way; return what ends it.

    Parameters
    ----------
    data : MutableMapping
        ``worker.data``, as `Spiller` takes it. Of a mapping that is not made of zict's parts nothing is changed.
    """
    slow = getattr(getattr(data, "device_buffer", data), "slow", None)
    load = getattr(slow, "load", None)
    if load is None:
        return lambda: None
    slow.load = or_on_the_host(load)

    def end() -> None:
        slow.load = load

    return end
