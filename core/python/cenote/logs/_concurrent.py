"""A replay whose recorded threads work at the same time, as they did when the trace was recorded.

Each thread makes its own events in their order. One that frees what another allocates waits until that has been done;
nothing else orders the threads. So a replay takes the time that the resource takes for threads that meet in it, and no
two replays are quite the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cenote.logs.trace import Action, Trace

_LOOK_SECONDS = 0.05
"""Between two looks of the caller at how far the threads are."""


class Step(NamedTuple):
    """An allocation, or the free of what the event `made` allocated."""

    event: int
    made: int | None
    nbytes: int
    stream: int


class Plan:
    """What each thread of a trace has to do.

    Attributes
    ----------
    steps : dict of int to list of Step
        By thread.
    awaited : set of int
        Events whose blocks another thread frees.
    leaked : set of int
        Events whose blocks are never freed.
    frees, unknown_frees, wrong_sizes, failures, largest_failure : int
        As those of `cenote.logs.replay.ReplayResult`.
    """

    def __init__(self, trace: Trace) -> None:
        self.steps: dict[int, list[Step]] = {}
        self.awaited: set[int] = set()
        self.frees = self.unknown_frees = self.wrong_sizes = self.failures = self.largest_failure = 0
        live: dict[int, tuple[int, int, int]] = {}  # from the recorded pointer to its event, bytes and thread
        columns = (trace[name].tolist() for name in ("thread", "action", "pointer", "bytes", "stream"))
        for event, (thread, action, pointer, nbytes, stream) in enumerate(zip(*columns, strict=True)):
            if action == Action.FAILURE:
                self.failures += 1
                self.largest_failure = max(self.largest_failure, nbytes)
                continue
            if nbytes == 0:
                continue
            its = self.steps.setdefault(thread, [])
            if action == Action.ALLOCATE:
                if pointer in live:
                    where = f"event {event + 1:,} of {len(trace):,}"
                    raise ValueError(f"{where}: {pointer:#x} is allocated again without having been freed")
                live[pointer] = (event, nbytes, thread)
                its.append(Step(event, None, nbytes, stream))
                continue
            made, made_bytes, by = live.pop(pointer, (None, nbytes, thread))
            if made is None:
                self.unknown_frees += 1
                continue
            self.frees += 1
            self.wrong_sizes += made_bytes != nbytes
            if by != thread:
                self.awaited.add(made)
            its.append(Step(event, made, made_bytes, stream))
        self.leaked = {event for event, _, _ in live.values()}


class ConcurrentReplay:
    """The threads of a plan, and what they have allocated.

    Parameters
    ----------
    plan : Plan
        Of the trace.
    mr : Any
        The resource.
    streams : mapping
        From the stream's number in the trace to the stream to use.
    """

    def __init__(self, plan: Plan, mr: Any, streams: Mapping[int, Any]) -> None:
        self._plan = plan
        self._mr = mr
        self._streams = streams
        self._blocks: dict[int, tuple[int, int, int]] = {}  # from the event to our pointer, the bytes and the stream
        self._made = {event: threading.Event() for event in plan.awaited}
        self._done = dict.fromkeys(plan.steps, 0)
        self._failure: tuple[int, int, BaseException] | None = None
        self._ends = threading.Event()
        self.seconds = 0.0

    def play(self, progress: Callable[[int], None] | None) -> tuple[int, int, BaseException] | None:
        """Have all threads make their steps; gives the event, the bytes and the error of one that failed."""
        threads = [
            threading.Thread(target=self._work, args=(number, steps), name=f"recorded thread {number}", daemon=True)
            for number, steps in self._plan.steps.items()
        ]
        begin = time.perf_counter()
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_SECONDS)
                    if progress is not None:
                        progress(sum(self._done.values()))
        except BaseException:
            self._ends.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        finally:
            self.seconds = time.perf_counter() - begin
        return self._failure

    def free_the_rest(self) -> None:
        """Free what is allocated still."""
        for ours, nbytes, stream in self._blocks.values():
            self._mr.deallocate(ours, nbytes, self._streams[stream])
        self._blocks.clear()

    def _work(self, number: int, steps: list[Step]) -> None:
        for at, step in enumerate(steps, 1):
            if self._ends.is_set():
                return
            try:
                self._make(step)
            except BaseException as error:
                if not self._ends.is_set():
                    self._failure = (step.event, step.nbytes, error)
                self._ends.set()
                return
            self._done[number] = at

    def _make(self, step: Step) -> None:
        if step.made is None:
            ours = self._mr.allocate(step.nbytes, self._streams[step.stream])
            self._blocks[step.event] = (ours, step.nbytes, step.stream)
            if step.event in self._made:
                self._made[step.event].set()
            return
        if step.made in self._made:
            while not self._made[step.made].wait(_LOOK_SECONDS):
                if self._ends.is_set():
                    return
        ours, nbytes, _ = self._blocks.pop(step.made)
        self._mr.deallocate(ours, nbytes, self._streams[step.stream])
