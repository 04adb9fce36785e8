"""Replay of a recorded trace on any memory resource, to see how much it would hold and whether the workload fits.

Recorded streams and threads are kept apart. Each stream of the trace has one of its own in the replay. Where the trace
names several threads, each has one of its own, from its first event to its last, so that what a resource keeps for each
thread is as it was when the trace was recorded. The events keep the order of the trace: one thread works at a time, and
hands over to the next. A trace of one thread is replayed by the caller's, which is faster by far. Or all work at the
same time (`replay` with ``at_once``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from cenote._core.arguments import whole_number
from cenote.logs._concurrent import ConcurrentReplay, Plan
from cenote.logs._relay import Relay
from cenote.logs.trace import Action, Trace, bytes_in_use, trace_argument
from cenote.stream import (
    DEFAULT_STREAM,
    LEGACY_DEFAULT_STREAM,
    PER_THREAD_DEFAULT_STREAM,
    CudaStreamFlags,
    Stream,
)

__all__ = ["Replay", "ReplayOutOfMemoryError", "ReplayResult", "replay", "streams_of"]

_DEFAULT_STREAMS = {0: DEFAULT_STREAM, 1: LEGACY_DEFAULT_STREAM, 2: PER_THREAD_DEFAULT_STREAM}
"""Handles that mean a default stream in every program: CUDA's ``cudaStreamLegacy`` and ``cudaStreamPerThread``."""

_LONGEST_PIECE = 16_384
"""Events that a recorded thread makes at a time, so that Ctrl-C does not wait long."""


class Resource(Protocol):
    """What a trace is replayed on: any resource of `cenote.mr`."""

    def allocate(self, nbytes: int, stream: Any, /) -> int:
        """Allocate `nbytes` bytes and return their address."""

    def deallocate(self, ptr: int, nbytes: int, stream: Any, /) -> None:
        """Free what `allocate` returned."""


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did.

    Attributes
    ----------
    allocations, frees : int
        Of the trace, that were made.
    failures, largest_failure : int
        Allocations that had failed when the trace was recorded, and the bytes of the largest; they are skipped.
    unknown_frees : int
        Frees of what was allocated before the recording began; they are skipped.
    wrong_sizes : int
        Frees with another size than that of the allocation; what was allocated is freed.
    peak_bytes : int
        The most bytes that were in use at once, as requested.
    leaked, leaked_bytes : int
        Allocations, and their bytes, that the trace never frees; the replay freed them at its end.
    seconds : float
        Wall-clock time of the replay, with the time spent in ``progress``.
    """

    allocations: int
    frees: int
    failures: int
    largest_failure: int
    unknown_frees: int
    wrong_sizes: int
    peak_bytes: int
    leaked: int
    leaked_bytes: int
    seconds: float


class ReplayOutOfMemoryError(MemoryError):
    """The resource had no memory for an event. The text says how far the replay came; the cause is its own error.

    Attributes
    ----------
    event : int
        Index of the event into the trace.
    requested, in_use : int
        Bytes that it asked for, and that the trace had in use by then.
    """

    def __init__(self, message: str, event: int = 0, requested: int = 0, in_use: int = 0) -> None:
        super().__init__(message)
        self.event = event
        self.requested = requested
        self.in_use = in_use


def first_line_of(error: BaseException) -> str:
    """Give the first line of an error's text: below it, one of memory has who holds what, here the replay itself."""
    return next(iter(str(error).splitlines()), "")


def streams_of(trace: Trace, device: int | None = None) -> dict[int, Any]:
    """Make a stream for each stream that a trace names.

    Parameters
    ----------
    trace : Trace
        Shape ``(events,)``.
    device : int, optional
        Where they are to be used; the current device if not given.

    Returns
    -------
    dict
        From the stream's number in the trace to a new `cenote.Stream`. It is non-blocking, so that nothing orders it
        with others. The numbers of the default streams (0, 1 for the legacy one, 2 for that of each thread) mean the
        same here.
    """
    if device is not None:
        whole_number("device", device, "the number of a device as int")
    names = np.unique(trace_argument(trace)["stream"]).tolist()
    flags = CudaStreamFlags.NON_BLOCKING
    return {name: _DEFAULT_STREAMS.get(name) or Stream(flags=flags, device=device) for name in names}


def _require_resource(mr: Resource) -> None:
    if isinstance(mr, type) or not callable(getattr(mr, "allocate", None)):
        raise TypeError(f"mr must be a memory resource, not {type(mr).__name__}")


class Replay:
    """A replay that can be paused: play a part of a trace, look around, play on, finish.

    The threads that it has made wait in between, and end with `finish`.

    Parameters
    ----------
    mr : Resource
        Any resource of `cenote.mr`.
    streams : mapping
        From the stream's number in the trace to the stream to use, as `streams_of` makes it.
    """

    def __init__(self, mr: Resource, streams: Mapping[int, Any]) -> None:
        _require_resource(mr)
        if not isinstance(streams, Mapping):
            raise TypeError(f"streams must be a mapping, as streams_of makes it, not {type(streams).__name__}")
        self._mr = mr
        self._streams = streams
        self._relay = Relay()
        self._live: dict[int, tuple[int, int, int]] = {}  # recorded pointer -> (our pointer, bytes, recorded stream)
        self._allocations = self._frees = self._failures = self._unknown_frees = self._wrong_sizes = 0
        self._largest_failure = 0
        self._in_use = self._peak_bytes = 0
        self._seconds = 0.0

    def play(
        self,
        trace: Trace,
        start: int = 0,
        stop: int | None = None,
        progress: Callable[[int], None] | None = None,
        progress_every: int = 256,
    ) -> None:
        """Make the allocations and frees ``trace[start:stop]``, in their order and each on its recorded thread.

        Parameters
        ----------
        trace : Trace
            What `cenote.logs.trace.read` returned, shape ``(events,)``. If it names one thread alone, that is the
            calling thread.
        start, stop : int, optional
            Indices of the first event, and of the one after the last.
        progress : callable, optional
            Called, by the calling thread, with the number of events that are done, counted from the begin of the trace.
        progress_every : int, optional
            How many events lie between two calls of `progress`; the last call is at the end.

        Raises
        ------
        ReplayOutOfMemoryError
            If the resource runs out of memory. What is allocated stays so until `finish`.
        ValueError
            If the trace allocates an address that it has not freed, or names a stream that is not in `streams`.
        """
        begin = time.perf_counter()
        start = whole_number("start", start, "the index of an event")
        stop = len(trace_argument(trace)) if stop is None else whole_number("stop", stop, "the index of an event")
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, not {type(progress).__name__}")
        if whole_number("progress_every", progress_every, "a number of events") < 1:
            raise ValueError(f"progress_every must be at least 1, not {progress_every}")
        start, stop, _ = slice(start, stop).indices(len(trace))
        for name in np.unique(trace["stream"][start:stop]).tolist():
            if name not in self._streams:
                raise ValueError(f"streams has none for the stream {name:#x} of the trace")
        if (trace["thread"] == trace["thread"][:1]).all():
            self._play_here(trace, start, stop, progress, progress_every)
        else:
            self._play_on_threads(trace, start, stop, progress, progress_every)
        if progress is not None:
            progress(max(start, stop))
        self._seconds += time.perf_counter() - begin

    def _play_here(
        self,
        trace: Trace,
        start: int,
        stop: int,
        progress: Callable[[int], None] | None = None,
        progress_every: int = 1,
    ) -> None:
        part = trace[start:stop]
        columns = (part[name].tolist() for name in ("action", "pointer", "bytes", "stream"))
        for event, (action, pointer, nbytes, stream) in enumerate(zip(*columns, strict=True), start):
            try:
                self._step(action, pointer, nbytes, stream)
            except MemoryError as error:
                message = (
                    f"out of memory at event {event + 1:,} of {len(trace):,} ({event / len(trace):.0%} done), which "
                    f"asks for {nbytes:,} bytes while {self._in_use:,} are in use: {first_line_of(error)}"
                )
                raise ReplayOutOfMemoryError(message, event, nbytes, self._in_use) from error
            except ValueError as error:
                raise ValueError(f"event {event + 1:,} of {len(trace):,}: {error}") from error
            if progress is not None and (event + 1) % progress_every == 0:
                progress(event + 1)

    def _play_on_threads(
        self, trace: Trace, start: int, stop: int, progress: Callable[[int], None] | None, progress_every: int
    ) -> None:
        threads = trace["thread"]
        names, from_the_end = np.unique(threads[::-1], return_index=True)
        last = dict(zip(names.tolist(), (len(trace) - 1 - from_the_end).tolist(), strict=True))
        cuts = [np.flatnonzero(np.diff(threads[start:stop])) + start + 1]
        for step in (_LONGEST_PIECE, _LONGEST_PIECE if progress is None else progress_every):
            cuts.append(np.arange(start - start % step + step, stop, step))
        ends = np.unique(np.concatenate([*cuts, [stop]])).tolist() if start < stop else []
        for end in ends:
            thread = int(threads[start])
            self._relay.run(thread, partial(self._play_here, trace, start, end))
            if last[thread] < end:
                self._relay.end(thread)
            if progress is not None and end % progress_every == 0:
                progress(end)
            start = end

    def finish(self) -> ReplayResult:
        """End the threads, free what the trace left allocated, and sum up.

        Returns
        -------
        ReplayResult
        """
        self._relay.close()
        leaked, leaked_bytes = len(self._live), self._in_use
        for ours, nbytes, stream in self._live.values():
            self._mr.deallocate(ours, nbytes, self._streams[stream])
        self._live.clear()
        self._in_use = 0
        return ReplayResult(
            allocations=self._allocations,
            frees=self._frees,
            failures=self._failures,
            largest_failure=self._largest_failure,
            unknown_frees=self._unknown_frees,
            wrong_sizes=self._wrong_sizes,
            peak_bytes=self._peak_bytes,
            leaked=leaked,
            leaked_bytes=leaked_bytes,
            seconds=self._seconds,
        )

    def _step(self, action: int, pointer: int, nbytes: int, stream: int) -> None:
        if nbytes == 0:  # holds nothing, and several such blocks may share one address
            return
        if action == Action.ALLOCATE:
            self._allocate(pointer, nbytes, stream)
        elif action == Action.FREE:
            self._free(pointer, nbytes, stream)
        else:
            self._failures += 1
            self._largest_failure = max(self._largest_failure, nbytes)

    def _allocate(self, pointer: int, nbytes: int, stream: int) -> None:
        if pointer in self._live:
            raise ValueError(f"{pointer:#x} is allocated again without having been freed")
        self._live[pointer] = (self._mr.allocate(nbytes, self._streams[stream]), nbytes, stream)
        self._allocations += 1
        self._in_use += nbytes
        self._peak_bytes = max(self._peak_bytes, self._in_use)

    def _free(self, pointer: int, freed_bytes: int, stream: int) -> None:
        if pointer not in self._live:
            self._unknown_frees += 1
            return
        ours, nbytes, _ = self._live.pop(pointer)
        self._wrong_sizes += freed_bytes != nbytes
        self._mr.deallocate(ours, nbytes, self._streams[stream])
        self._frees += 1
        self._in_use -= nbytes


def replay(
    trace: Trace,
    mr: Resource,
    streams: Mapping[int, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    progress_every: int = 256,
    *,
    at_once: bool = False,
) -> ReplayResult:
    """Replay a whole trace; see `Replay` for one that can be paused.

    Parameters
    ----------
    trace : Trace
        What `cenote.logs.trace.read` returned, shape ``(events,)``.
    mr : Resource
        Any resource of `cenote.mr`.
    streams : mapping, optional
        From the stream's number in the trace to the stream to use; `streams_of` the trace if not given.
    progress : callable, optional
        Called with the number of events that are done.
    progress_every : int, optional
        How many events lie between two calls of `progress`; the last call is at the end. With `at_once` it is called
        from time to time.
    at_once : bool, default False
        Have the recorded threads work at the same time. Each keeps to the order of its events, and one that frees what
        another allocates waits for that; nothing else orders them, so that more or less may be in use than was
        recorded. ``peak_bytes`` is that of the trace.

    Returns
    -------
    ReplayResult

    Raises
    ------
    ReplayOutOfMemoryError
        If `mr` runs out of memory. Everything that was allocated is freed first.
    ValueError
        If the trace allocates an address that it has not freed, or as `streams_of` says.
    """
    _require_resource(mr)
    its_streams = streams_of(trace, getattr(mr, "device", None)) if streams is None else streams
    if at_once:
        return _replay_at_once(trace, mr, its_streams, progress)
    run = Replay(mr, its_streams)
    try:
        run.play(trace, progress=progress, progress_every=progress_every)
    finally:
        result = run.finish()
    return result


def _replay_at_once(
    trace: Trace, mr: Resource, streams: Mapping[int, Any], progress: Callable[[int], None] | None
) -> ReplayResult:
    plan = Plan(trace)
    in_use = bytes_in_use(trace)
    run = ConcurrentReplay(plan, mr, streams)
    try:
        failure = run.play(progress)
    finally:
        run.free_the_rest()
    if failure is not None:
        event, nbytes, error = failure
        if not isinstance(error, MemoryError):
            raise error
        before = int(in_use[event - 1]) if event else 0
        message = (
            f"out of memory at event {event + 1:,} of {len(trace):,}, which asks for {nbytes:,} bytes; {before:,} were "
            f"in use before it when it was recorded: {first_line_of(error)}"
        )
        raise ReplayOutOfMemoryError(message, event, nbytes, before) from error
    if progress is not None:
        progress(len(trace))
    return ReplayResult(
        allocations=plan.frees + len(plan.leaked),
        frees=plan.frees,
        failures=plan.failures,
        largest_failure=plan.largest_failure,
        unknown_frees=plan.unknown_frees,
        wrong_sizes=plan.wrong_sizes,
        peak_bytes=int(in_use.max(initial=0)),
        leaked=len(plan.leaked),
        leaked_bytes=int(trace["bytes"][sorted(plan.leaked)].sum()),
        seconds=run.seconds,
    )
