"""Memory that several CUDA graphs have together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cenote import driver
from cenote._core import captures
from cenote._core.arguments import whole_number

if TYPE_CHECKING:
    from cenote._core.stream import _StreamLike

__all__ = ["GraphPool"]

_OURS = 1 << 63  # no framework's number: PyTorch's count from 1
_numbers = itertools.count()


class GraphPool:
    """Let graphs have memory together: ``with pool.capture(stream):`` around each capture.

    What one capture has freed, the later ones on the same stream take, so that temporary memory is there once for all
    graphs. Nothing is mapped or copied at a launch. The program says by it:

    * its graphs are launched one at a time, each after what uses the results of the one before;
    * what a graph leaves in memory that it allocated is valid until another graph of the pool is launched.

    The memory goes back when the graphs that use it are destroyed. Without a pool each graph has memory of its own.
    PyTorch has pools of its own (``torch.cuda.graph(pool=…)``), which it tells to cenote by itself. Only a pool over
    virtual memory, ``"pool | virtual"``, shares; on another resource each graph's memory stays its own.

    Parameters
    ----------
    device : int, optional
        Where the captures are; the current device if not given.

    Raises
    ------
    TypeError
        A device that is not a whole number.

    Examples
    --------
    >>> import cenote
    >>> stream = cenote.Stream()
    >>> pool = cenote.GraphPool()
    >>> for _ in range(2):
    ...     with pool.capture(stream):
    ...         ...  # begin a capture on the stream, allocate and free, end the capture
    Ellipsis
    Ellipsis
    """

    def __init__(self, device: int | None = None) -> None:
        self._device = (
            driver.current_device() if device is None else whole_number("device", device, "the number of a device")
        )
        self._number = (_OURS + next(_numbers), _OURS)
        self._is_known = False

    @contextmanager
    def capture(self, stream: _StreamLike) -> Iterator[None]:
        """Announce a capture, which begins and ends inside.

        Parameters
        ----------
        stream : Stream or any framework's stream
            Where the capture begins. Streams that it forks to take part.

        Raises
        ------
        TypeError
            `stream` is none.
        IndexError
            A device that there is not.
        """
        captures.begin_capture_into(self._device, *self._number, stream)
        if self._is_known:  # counts once, for all its graphs
            captures.release_graph_pool(self._device, *self._number)
        self._is_known = True
        try:
            yield
        finally:
            captures.end_capture_into(self._device, *self._number)

    def __del__(self) -> None:
        if getattr(self, "_is_known", False):
            captures.release_graph_pool(self._device, *self._number)
