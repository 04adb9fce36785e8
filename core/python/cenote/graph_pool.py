"""Memory that several CUDA graphs have together."""

from __future__ import annotations

import itertools
from types import TracebackType

from cenote import driver
from cenote._core import captures
from cenote._core.arguments import whole_number

__all__ = ["GraphPool"]

_OURS = 1 << 63  # no framework's number: PyTorch's count from 1
_numbers = itertools.count()


class GraphPool:
    """Let graphs have memory together: ``with pool:`` around each capture.

    What one capture has freed, the later ones on the same stream take, so that temporary memory is there once for all
    graphs. Nothing is mapped or copied at a launch. The program says by it:

    * its graphs are launched one at a time, in the order of their captures;
    * what a graph leaves in memory that it allocated is valid until a later graph of the pool is launched.

    Without a pool each graph has memory of its own. PyTorch has pools of its own (``torch.cuda.graph(pool=…)``), which
    it tells to cenote by itself. Only a pool over virtual memory, ``"pool | virtual"``, shares; on another resource
    each graph's memory stays its own.

    Parameters
    ----------
    device : int, optional
        Where the captures are; the current device if not given.

    Raises
    ------
    TypeError
        A device that is not a whole number.
    IndexError
        A device that there is not: when the pool is entered.

    Notes
    -----
    A capture is the pool's by the thread that entered the pool. Threads that it starts may allocate for it, too, if no
    other pool is entered on the device meanwhile.

    Examples
    --------
    >>> import cenote
    >>> stream = cenote.Stream()
    >>> pool = cenote.GraphPool()
    >>> for _ in range(2):
    ...     with pool:
    ...         ...  # begin a capture on the stream, allocate and free on it, end the capture
    Ellipsis
    Ellipsis
    >>> pool.release()
    """

    def __init__(self, device: int | None = None) -> None:
        self._device = (
            driver.current_device() if device is None else whole_number("device", device, "the number of a device")
        )
        self._number = (_OURS + next(_numbers), _OURS)
        self._is_known = False
        self._is_open = False

    def __enter__(self) -> GraphPool:
        """Announce a capture, which begins inside.

        Raises
        ------
        RuntimeError
            A capture into the pool is going on: it takes one at a time.
        """
        if self._is_open:
            raise RuntimeError("this pool of graphs is entered already: it takes one capture at a time")
        captures.begin_capture_into(self._device, *self._number)
        self._is_open = True
        if self._is_known:  # counts once, for all its graphs
            captures.release_graph_pool(self._device, *self._number)
        self._is_known = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that the capture has ended, whether or not it succeeded."""
        self._is_open = False
        captures.end_capture_into(self._device, *self._number)

    def release(self) -> None:
        """Let the memory go back to the device once the graphs are destroyed, as the end of this object does, too.

        A later capture makes a pool of its own.

        Raises
        ------
        RuntimeError
            A capture into the pool is going on.
        """
        if self._is_open:
            raise RuntimeError("a capture into this pool of graphs is going on: it can be released afterwards")
        if self._is_known:
            self._is_known = False
            captures.release_graph_pool(self._device, *self._number)

    def __del__(self) -> None:
        if getattr(self, "_is_known", False) and not self._is_open:
            self.release()
