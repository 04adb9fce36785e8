"""The page floor of a trace: the memory that a pool needs which can put every wholly free page to use anywhere.

Blocks of a trace are placed in one range of addresses, in steps of 256 bytes: each into the smallest free part that it
fits into, the lowest of several; the range grows at its end where none is large enough. A page is touched while a block
lies on it. The floor is the most pages that are touched at once. Streams do not matter: a block that is freed serves
the next one at once.

A pool over chunks needs more, since a free page in the midst of a chunk serves no other place; one that moves pages can
come close. A cleverer placement may need a little less, but never less than the peak of live bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from cenote._core.arguments import whole_number
from cenote.logs.trace import Action, Trace, trace_argument

__all__ = ["PageFloor", "page_floor"]

_STEP = 256
"""Bytes to which sizes are rounded up, as the pools of cenote do."""

_PAGE_BYTES = 2 * 1024**2
"""The smallest page of a device."""


@dataclass(frozen=True)
class PageFloor:
    """What a trace needs at the least.

    Attributes
    ----------
    peak_bytes : int
        The most bytes that are live at once, as requested.
    pages, page_bytes : int
        The most pages that are touched at once, and the size of each.
    """

    peak_bytes: int
    pages: int
    page_bytes: int

    @property
    def nbytes(self) -> int:
        """The floor in bytes: that of the pages."""
        return self.pages * self.page_bytes

    @property
    def ratio(self) -> float:
        """The floor over the peak of live bytes; 1 if nothing is ever live."""
        return self.nbytes / self.peak_bytes if self.peak_bytes else 1.0


def page_floor(trace: Trace, page_bytes: int = _PAGE_BYTES) -> PageFloor:
    """Compute the page floor of a trace. Needs no device, and about a microsecond for each event.

    Parameters
    ----------
    trace : Trace
        What `cenote.logs.trace.read` returned, shape ``(events,)``. Allocations that had failed, frees of what the
        trace does not allocate, and blocks of no bytes do not count.
    page_bytes : int, optional
        Size of a page: a multiple of 256.

    Returns
    -------
    PageFloor

    Raises
    ------
    ValueError
        If the trace allocates an address that it has not freed, or `page_bytes` is no size of a page.
    """
    if whole_number("page_bytes", page_bytes, "a number of bytes") < _STEP or page_bytes % _STEP:
        raise ValueError(f"page_bytes must be a multiple of {_STEP}, not {page_bytes}")
    addresses = _Addresses()
    pages = _TouchedPages(page_bytes // _STEP)
    live: dict[int, tuple[int, int, int]] = {}  # recorded pointer -> (begin and end in steps, bytes)
    in_use = peak = 0
    columns = (trace_argument(trace)[name].tolist() for name in ("action", "pointer", "bytes"))
    for event, (action, pointer, nbytes) in enumerate(zip(*columns, strict=True), 1):
        if nbytes == 0 or action == Action.FAILURE:
            continue
        if action == Action.ALLOCATE:
            if pointer in live:
                raise ValueError(
                    f"event {event:,} of {len(trace):,}: {pointer:#x} is allocated again without having been freed"
                )
            size = -(-nbytes // _STEP)
            begin = addresses.take(size)
            live[pointer] = (begin, begin + size, nbytes)
            pages.touch(begin, begin + size)
            in_use += nbytes
            peak = max(peak, in_use)
        elif pointer in live:
            begin, end, nbytes = live.pop(pointer)
            addresses.give(begin, end)
            pages.leave(begin, end)
            in_use -= nbytes
    return PageFloor(peak, pages.most, page_bytes)


class _Addresses:
    """One range of addresses, in steps, of which the best fit is taken.

    A free part is one whole number, its size above its address, so that their order is that of the best fit. Free parts
    never touch one another.
    """

    _SIZE = 1 << 64

    def __init__(self) -> None:
        self._free: list[int] = []  # sorted
        self._size_at: dict[int, int] = {}  # begin of a free part -> its size
        self._size_before: dict[int, int] = {}  # end of a free part -> its size
        self._end = 0

    def take(self, size: int) -> int:
        at = bisect_left(self._free, size * self._SIZE)
        if at == len(self._free):
            return self._grow(size)
        found, begin = divmod(self._free[at], self._SIZE)
        self._remove(begin, found)
        if found > size:
            self._insert(begin + size, found - size)
        return begin

    def give(self, begin: int, end: int) -> None:
        if before := self._size_before.get(begin):
            begin -= before
            self._remove(begin, before)
        if behind := self._size_at.get(end):
            self._remove(end, behind)
            end += behind
        self._insert(begin, end - begin)

    def _grow(self, size: int) -> int:
        """Take what is free at the end of the range, and as much behind it as is missing."""
        begin = self._end
        if last := self._size_before.get(begin):
            begin -= last
            self._remove(begin, last)
        self._end = begin + size
        return begin

    def _insert(self, begin: int, size: int) -> None:
        insort(self._free, size * self._SIZE + begin)
        self._size_at[begin] = self._size_before[begin + size] = size

    def _remove(self, begin: int, size: int) -> None:
        del self._free[bisect_left(self._free, size * self._SIZE + begin)]
        del self._size_at[begin], self._size_before[begin + size]


class _TouchedPages:
    """How many pages have a block on them. All but the first and the last page of a block are its alone."""

    def __init__(self, page: int) -> None:
        self._page = page  # in steps
        self._shared: dict[int, int] = {}  # page -> the blocks that begin or end on it
        self._now = 0
        self.most = 0

    def touch(self, begin: int, end: int) -> None:
        first, last = begin // self._page, (end - 1) // self._page
        self._now += max(0, last - first - 1)
        for page in {first, last}:
            blocks = self._shared.get(page, 0)
            self._shared[page] = blocks + 1
            self._now += blocks == 0
        self.most = max(self.most, self._now)

    def leave(self, begin: int, end: int) -> None:
        first, last = begin // self._page, (end - 1) // self._page
        self._now -= max(0, last - first - 1)
        for page in {first, last}:
            self._shared[page] -= 1
            if self._shared[page] == 0:
                del self._shared[page]
                self._now -= 1
