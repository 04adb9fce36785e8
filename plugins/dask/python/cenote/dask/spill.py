"""Spilling on demand: when an allocation finds no memory, values of the worker that lie on the device go to the host.

    allocation ──► pool: no memory ──► Spiller(bytes) ──► the worker's data evicts ──► again
                                           │
                                           └── nothing left to evict ──► OutOfMemoryError

Dask spills by what it counts itself: dask-cuda's ``device_memory_limit`` bounds the values that it keeps, not what
running tasks and other libraries allocate. This spills by what the pool has: only when there is no memory, and only
as much as is asked for, the least recently used first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Spiller"]

_logger = logging.getLogger("distributed.worker.cenote")


def holds_device_memory(value: object) -> bool:
    """Whether a value is an array on the device, or a collection that begins with one."""
    while isinstance(value, list | tuple | set | frozenset | dict):
        elements = value.values() if isinstance(value, dict) else value
        value = next(iter(elements), None)
    return hasattr(type(value), "__cuda_array_interface__")


class Spiller:
    """Called with a number of bytes, evicts about as many of a worker's values from the device; False if it cannot.

    Parameters
    ----------
    data : MutableMapping
        ``worker.data``: dask-cuda's ``DeviceHostFile``, Dask's ``SpillBuffer`` or another zict.Buffer, from which the
        values on the device are picked, or a mapping with ``evict()`` as `distributed.spill.ManualEvictProto` says.

    Raises
    ------
    TypeError
        A mapping that evicts nothing, such as a dict.

    Notes
    -----
    Several threads may call at a time: one evicts, the others wait and then try what it has freed. A value that a
    running task uses is copied, and its memory freed when the task is done. Where an eviction itself runs out of memory
    it is not called again.
    """

    def __init__(self, data: Any) -> None:
        self._evictions = _find_evictions(data)
        self._lock = threading.Lock()  # guards all below but for reading; held while values are copied to the host
        self._evicting_thread = 0
        self._rounds = 0  # of evictions that freed something
        self.evicted_bytes = 0
        self.evicted_count = 0

    def __call__(self, nbytes: int) -> bool:
        """Evict values until their sizes are at least `nbytes`; return whether it is worth another try."""
        if self._evicting_thread == threading.get_ident():
            return False
        rounds = self._rounds
        with self._lock:
            if self._rounds != rounds:  # another thread has just freed something: that may do
                return True
            self._evicting_thread = threading.get_ident()
            try:
                evicted = self._evict(nbytes)
            finally:
                self._evicting_thread = 0
            if evicted:
                self._rounds += 1
            return evicted > 0

    def _evict(self, nbytes: int) -> int:
        evicted = 0
        for size in self._evictions():
            evicted += size
            self.evicted_bytes += size
            self.evicted_count += size > 0
            if evicted >= nbytes:
                break
        return evicted


def _find_evictions(data: Any) -> Callable[[], Iterator[int]]:
    """Find what evicts values one by one, and yields the size of each."""
    is_of_dask_cuda = hasattr(data, "device_buffer")  # all that lies there is on the device, and nothing else is
    lru = getattr(data.device_buffer if is_of_dask_cuda else data, "fast", None)
    if hasattr(lru, "evict"):
        return lambda: _evict_from_lru(lru)
    if hasattr(data, "evict") and not is_of_dask_cuda:
        return lambda: _evict_by_protocol(data)
    raise TypeError(
        f"the worker's data, a {type(data).__name__}, cannot evict what lies on the device: take dask-cuda's with a "
        "device_memory_limit, or Dask's own with a memory limit"
    )


def _evict_from_lru(lru: Any) -> Iterator[int]:
    with lru.lock:
        keys = list(lru.order)
    for key in keys:
        value = lru.d.get(key)
        if not holds_device_memory(value):
            continue
        del value  # or it would live on here
        try:
            yield int(lru.evict(key)[2])
        except KeyError:  # deleted meanwhile
            continue
        except Exception:  # the disk is full, or the value cannot be serialized: it stays where it is
            _logger.warning("cenote could not spill %r", key, exc_info=True)


def _evict_by_protocol(data: Any) -> Iterator[int]:
    while (size := data.evict()) > 0:
        yield int(size)
