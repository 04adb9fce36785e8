"""Pressure handlers: functions of the program that free memory when an allocation finds none.

::

    cenote.add_pressure_handler(cenote.pressure.collect_garbage, priority=10)
    cenote.add_pressure_handler(cenote.pressure.empty_cupy_cache)
    cenote.add_pressure_handler(spill_the_coldest)              # def spill_the_coldest(nbytes, device): …

An allocation that has no memory calls them, the highest priority first, and tries again after each that may have freed
something. It is out of memory when none could help; the error says what each of them did (`OutOfMemoryError.steps`).

They run on a thread of their own, one at a time, without a lock of cenote's. The allocation waits for each at most as
long as its `timeout` says. What they allocate themselves calls no handler. A caller that holds the interpreter's lock
cannot wait for another thread of Python's: there, and while its stream is being captured, they are skipped, and the
error says so.
"""

from __future__ import annotations

import atexit
import gc
import math
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cenote._core import logger as _logger
from cenote._core import pressure as _pressure
from cenote._core.arguments import whole_number
from cenote._core.pressure import HandlerFigures
from cenote._core.public_names import publish

__all__ = [
    "HandlerFigures",
    "PressureHandler",
    "add_pressure_handler",
    "collect_garbage",
    "empty_cupy_cache",
    "empty_torch_cache",
    "pressure_handlers",
    "remove_pressure_handler",
]

_LONGEST_WAIT = 3600.0
_LARGEST_PRIORITY = 2**31 - 1

_lock = threading.Lock()  # guards all below
_added: dict[int, PressureHandler] = {}
_next_number = 1
_thread: threading.Thread | None = None


class PressureHandler:
    """A handler that was added: `remove` takes it away, and so does the end of a ``with`` block over it."""

    def __init__(self, number: int, core_number: int, function: Callable[[int, int], int | None]) -> None:
        self._number = number
        self._core_number = core_number
        self.function = function

    def remove(self) -> bool:
        """Take it away; False if it was taken away before. A call that has begun goes on."""
        with _lock:
            _added.pop(self._number, None)
        return _pressure.remove(self._core_number)

    def __enter__(self) -> PressureHandler:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.remove()


def add_pressure_handler(
    function: Callable[[int, int], int | None],
    priority: int = 0,
    *,
    name: str | None = None,
    timeout: float = 10.0,
) -> PressureHandler:
    """Have a function called when memory runs out.

    Parameters
    ----------
    function : callable
        ``function(nbytes, device)`` is told the bytes that are needed and on which device. It returns the bytes that it
        has freed; None if it does not know. After 0 the allocation is not tried again for its sake. What it raises is
        reported through ``sys.unraisablehook``, and the next one is called.
    priority : int, default 0
        The highest one is called first; of one priority, the one that was added first.
    name : str, optional
        What errors and `pressure_handlers` call it; the function's own name if not given.
    timeout : float, default 10.0
        Seconds that an allocation waits for it at the most, 3600 being the longest.

    Returns
    -------
    PressureHandler
        What `remove_pressure_handler` takes.

    Raises
    ------
    TypeError
        If `function` cannot be called, or another argument is of the wrong type.
    ValueError
        If `priority` is beyond 32 bits, or `timeout` is not between 0 and 3600 seconds.
    """
    global _next_number
    if not callable(function):
        raise TypeError(f"function must be callable, not {type(function).__name__}")
    order = whole_number("priority", priority, "an int")
    if abs(order) > _LARGEST_PRIORITY:
        raise ValueError(f"priority must be within ±{_LARGEST_PRIORITY}, not {order}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not (math.isfinite(timeout) and 0 <= timeout <= _LONGEST_WAIT):
        raise ValueError(f"timeout must be from 0 to {_LONGEST_WAIT:.0f} seconds, not {timeout}")
    if name is None:
        name = getattr(function, "__qualname__", type(function).__name__)
    elif not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    _start()
    with _lock:
        number = _next_number
        _next_number += 1
        handler = PressureHandler(number, 0, function)
        _added[number] = handler
        try:
            handler._core_number = _pressure.add(name, number, order, float(timeout))
        except BaseException:
            del _added[number]
            raise
    return handler


def remove_pressure_handler(handler: PressureHandler | Callable[[int, int], int | None]) -> bool:
    """Take a handler away.

    Parameters
    ----------
    handler : PressureHandler or callable
        What `add_pressure_handler` returned, or the function: then all handlers with it are taken away.

    Returns
    -------
    bool
        False if it was there no more.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(handler, PressureHandler):
        return handler.remove()
    if not callable(handler):
        raise TypeError(f"handler must be what add_pressure_handler returned, not {type(handler).__name__}")
    with _lock:
        found = [each for each in _added.values() if each.function == handler]
    return any([each.remove() for each in found])


def pressure_handlers() -> list[HandlerFigures]:
    """Give what each handler has done, those of C++ included, in the order in which they are called."""
    return _pressure.figures()


def collect_garbage(nbytes: int, device: int) -> None:
    """Free what only reference cycles keep: Python's ``gc.collect()``. How many bytes that were is not known."""
    gc.collect()


def empty_cupy_cache(nbytes: int, device: int) -> int:
    """Give back what CuPy's own memory pool keeps unused; 0 where CuPy is not loaded, or allocates from cenote.

    Returns
    -------
    int
        The bytes given back.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return 0
    with cupy.cuda.Device(device):
        pool = cupy.get_default_memory_pool()
        before = pool.total_bytes()
        pool.free_all_blocks()
        return max(0, int(before - pool.total_bytes()))


def empty_torch_cache(nbytes: int, device: int) -> int | None:
    """Give back what PyTorch's caching allocator keeps unused; 0 where PyTorch is not loaded or has not used the GPU.

    Returns
    -------
    int or None
        The bytes given back; None where PyTorch does not tell.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    with torch.cuda.device(device):
        before = _reserved(torch, device)
        torch.cuda.empty_cache()
        after = _reserved(torch, device)
    return None if before is None or after is None else max(0, before - after)


def _reserved(torch: Any, device: int) -> int | None:
    try:
        return int(torch.cuda.memory_reserved(device))
    except RuntimeError:  # an allocator of somebody else's keeps no such figures
        return None


def _serve() -> None:
    """Run what allocations ask for, one at a time, until the desk is closed."""
    while (request := _pressure.wait()) is not None:
        with _lock:
            handler = _added.get(request.handler)
        if handler is None:
            request.answer(0, "")
            continue
        try:
            request.answer(_freed(handler.function(request.nbytes, request.device)), "")
        except BaseException as error:
            request.answer(None, f"{type(error).__name__}: {error}")
            _logger.report_unraisable(error, handler.function)
        del handler, request  # they are not kept until the next request


def _freed(returned: Any) -> int | None:
    if returned is None:
        return None
    freed = whole_number("what a pressure handler returns", returned, "the bytes it has freed as int, or None")
    if freed < 0:
        raise ValueError(f"what a pressure handler returns must be the bytes it has freed, not {freed}")
    return freed


def _start() -> None:
    global _thread
    with _lock:
        if _thread is not None and _thread.is_alive():
            return
        _pressure.open_desk()
        _thread = threading.Thread(target=_serve, name="cenote-pressure", daemon=True)
        _thread.start()


@atexit.register
def _stop() -> None:
    """Before the interpreter goes: a daemon thread that wakes up during its end cannot take the GIL any more."""
    global _thread
    if _thread is None:
        return
    _pressure.close_desk()
    _thread.join(timeout=1.0)  # a handler that hangs does not keep the process
    _thread = None


def _forget_thread() -> None:
    """In a forked child, which has not the thread: its handlers are skipped until it adds one of its own."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()
    _pressure.renew_desk()


os.register_at_fork(after_in_child=_forget_thread)
publish(globals())
