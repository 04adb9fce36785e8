"""Graphs that share pages: each keeps its addresses, and all of them together cost what the largest one needs.

`cenote.graphs_share_pages` makes a `SharedPages`. The pages are the full allocator's matter (``graph_pages.hpp``); here
is what a program says, and what looks at its launches.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from types import TracebackType
from typing import Any

from cenote.allocators.torch import full_allocator

__all__ = ["SharedPages"]

_numbers = itertools.count(1)


class SharedPages:
    """A set of pages, and the context in which graphs join it."""

    def __init__(self) -> None:
        if not full_allocator.is_on():
            raise RuntimeError(
                "graphs share pages under the full allocator only: compile it once, 'cenote build torch', and call "
                "cenote.install() before"
            )
        self._number = next(_numbers)
        self._previous: list[int] = []
        _sets[self._number] = _Launches()
        weakref.finalize(self, _forget, self._number)
        _watch_launches()

    def __enter__(self) -> SharedPages:
        """Begin: graphs that this thread captures join the set."""
        self._previous.append(full_allocator.join_pages(self._number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: later graphs have memory of their own again, or of the set around this one."""
        full_allocator.join_pages(self._previous.pop())

    @property
    def nbytes(self) -> int:
        """Bytes of the pages that the graphs share, on all devices."""
        return full_allocator.bytes_of_pages(self._number)


class _Launches:
    """The last launch of a set on each device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[int, tuple[weakref.ref[Any], Any, Any]] = {}

    def replay(self, graph: Any, launch: Any) -> None:
        import torch

        stream = torch.cuda.current_stream()
        with self._lock:
            last = self._last.get(stream.device_index)
            if last is not None:
                previous, its_stream, done = last
                if previous() is not graph and its_stream != stream and not done.query():
                    raise RuntimeError(
                        "two graphs that share pages would run at once: the one that was launched before, on another "
                        "stream, has not finished. Launch the graphs of a set on one stream, or wait for it "
                        "(synchronize) first"
                    )
            launch(graph)
            event = last[2] if last is not None else torch.cuda.Event()
            event.record(stream)
            self._last[stream.device_index] = (weakref.ref(graph), stream, event)


_sets: dict[int, _Launches] = {}
"""Those that a program can still name, and those whose graphs were launched since."""


def _forget(number: int) -> None:
    """Keep the launches as long as there are pages: graphs outlive the object that they were captured under."""
    if full_allocator.bytes_of_pages(number) == 0:
        _sets.pop(number, None)


def _launches_of(graph: Any) -> _Launches | None:
    """Give the set that a captured graph belongs to, which is looked up once a capture."""
    try:
        pool = tuple(graph.pool())
    except RuntimeError:  # nothing was captured: replay says so
        return None
    known = graph.__dict__.get("_cenote_pages")
    if known is None or known[0] != pool:
        number = full_allocator.pages_of(*pool)
        known = graph._cenote_pages = (pool, _sets.get(number) if number else None)
    return known[1]


@functools.cache
def _watch_launches() -> None:
    """Look at launches from Python, from the first set on."""
    import torch

    replay = torch.cuda.CUDAGraph.replay

    @functools.wraps(replay)
    def replay_alone(self: Any) -> None:
        launches = _launches_of(self)
        if launches is None or torch.cuda.is_current_stream_capturing():
            replay(self)
        else:
            launches.replay(self, replay)

    torch.cuda.CUDAGraph.replay = replay_alone  # type: ignore[method-assign]
