"""Snapshots of PyTorch's memory history, read as traces: what ``torch.cuda.memory._dump_snapshot`` writes.

A snapshot is a pickle, and a pickle can run any program when it is loaded. This one is read by an unpickler that makes
numbers, texts, lists, tuples, sets and dicts, and refuses all else before it is made.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

__all__ = ["is_pickle", "rows_of_snapshot"]

Row = tuple[int, int, int, int, int, int]

_ACTIONS = {"alloc": 0, "free_completed": 1, "oom": 2}
_MOST = 2**63 - 1


def is_pickle(beginning: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or newer."""
    return len(beginning) >= 2 and beginning[0] == 0x80 and 2 <= beginning[1] <= 5


class _PlainData(pickle.Unpickler):
    """An unpickler without classes and functions."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and a snapshot is plain data: it is not loaded")

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to data that is elsewhere, and a snapshot is plain data")


def rows_of_snapshot(content: bytes, device: int | None = None) -> list[Row]:
    """Read the events of one device.

    Parameters
    ----------
    content : bytes
        The pickle.
    device : int, optional
        The device; the first that has events if not given.

    Returns
    -------
    list of tuple
        Thread (always 0), time in microseconds, action, address, bytes and stream of each event, in order. What is
        freed is free when its work is done (``free_completed``); segments are no events.

    Raises
    ------
    ValueError
        If it is no snapshot, or asks for more than plain data; the text says what is wrong.
    """
    try:
        snapshot = _PlainData(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no snapshot of PyTorch's: {error}") from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(f"this is no snapshot of PyTorch's: it is damaged ({type(error).__name__})") from error
    traces = snapshot.get("device_traces") if isinstance(snapshot, dict) else None
    if not isinstance(traces, list):
        raise ValueError("this is a pickle, but no snapshot of PyTorch's: it has no 'device_traces'")
    chosen = next((at for at, trace in enumerate(traces) if trace), 0) if device is None else device
    if not 0 <= chosen < len(traces) or not traces[chosen]:
        raise ValueError(
            "the snapshot has no events: call torch.cuda.memory._record_memory_history() before what is to be recorded"
        )
    return list(_rows(traces[chosen]))


def _rows(trace: object) -> Iterator[Row]:
    if not isinstance(trace, list):
        raise ValueError(f"the snapshot is damaged: its events are {type(trace).__name__}, not a list")
    first = None
    for at, event in enumerate(trace, 1):
        if not isinstance(event, dict):
            raise ValueError(f"event {at:,} of the snapshot is damaged: it is {type(event).__name__}, not a dict")
        action = event.get("action")
        if action not in _ACTIONS:
            continue
        time_us = _number(event, "time_us", at, missing=0)
        first = time_us if first is None else first
        address = 0 if action == "oom" else _number(event, "addr", at)
        stream = _number(event, "stream", at, missing=0)
        yield 0, max(0, time_us - first), _ACTIONS[action], address, _number(event, "size", at), stream


def _number(event: dict[Any, Any], name: str, at: int, missing: int | None = None) -> int:
    value = event.get(name, missing)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError(f"event {at:,} of the snapshot is damaged: its {name} is {value!r:.40}")
    return value
