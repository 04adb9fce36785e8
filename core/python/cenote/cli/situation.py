"""A run that ran out of memory, as it is replayed: its events, what was in force, and what may be the cause.

What a graph has used is kept for it until it is gone, and a pinned block stays where it is after it was freed. A trace
does not say either, but a recording does (`cenote.recorder.Event.HOLD`): here the events are changed so that a replay
holds as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cenote.logs.trace import Action, Trace
from cenote.recorder import Event, Recording
from cenote.recorder._streams import FIRST_CAPTURED, FIRST_STREAM
from cenote.units import format_bytes

__all__ = ["Change", "Situation", "situation_of"]

_POINTERS_OF_GRAPHS = 1 << 20  # below any address of a device
_PAGE = 2 << 20  # bytes: a graph has pages of its own
_FIRST_CAPTURED = np.uint64(FIRST_CAPTURED + FIRST_STREAM)  # of a trace

# Limits for calling growth a leak: tuned on the traces of tests/traces with leaks of many kinds, and without.
_FEWEST_EVENTS = 256
_FEWEST_BLOCKS = 4
_KEPT = 0.9
"""The part of its allocations that is not freed where something only grows."""
_MOST_UNEVEN = 0.3
"""The largest difference between the part of the time that is gone and the part of the bytes that has come."""
_FEWEST_TIMES = 2
_MOST_SIZES = 4
_LEAST_TO_COME_AND_GO = 8
"""Of the most in use: an eighth."""


@dataclass(frozen=True)
class Change:
    """What is different from the run that failed.

    Attributes
    ----------
    specification : str
        The resource.
    device_bytes : int
        Memory of the device.
    outside_bytes : int
        What others hold of it.
    without : frozenset of int
        Events whose blocks are freed at once.
    pinned : frozenset of int
        Events whose blocks are pinned, also after they are freed.
    budget_bytes : int or None
        The most bytes that the resource may hold under the budget of the process.
    captured_from : int or None
        The event before which the stream of the failure begins to be captured.
    trims : bool
        Whether all that is free is given back before that.
    """

    specification: str
    device_bytes: int
    outside_bytes: int
    without: frozenset[int] = frozenset()
    pinned: frozenset[int] = frozenset()
    budget_bytes: int | None = None
    captured_from: int | None = None
    trims: bool = False


@dataclass(frozen=True)
class Situation:
    """A run that ran out of memory.

    Attributes
    ----------
    trace : Trace
        Its events, those that failed included.
    specification : str
        The resource in force.
    device_bytes : int
        Memory of the device.
    outside_bytes : int
        What others hold of it: libraries beside cenote, contexts, other processes.
    process_bytes : int
        The part of that which other processes hold, as far as it is known.
    fixed_bytes : int
        The part of that which nobody can give back, such as contexts.
    budget_bytes : int or None
        The most bytes that the process may hold in all, where it has a budget.
    budget_of_others : int
        The part of that which other resources, and processes that share the budget, hold.
    growing : tuple of (str, frozenset of int)
        What only grows, in words, and the events of the blocks that stayed.
    of_graphs : frozenset of int
        The events that stand for the memory of graphs.
    graphs : int
        How many these are.
    pinned : frozenset of int
        Events whose blocks are pinned and not in use any more.
    captured_from : int or None
        The first event of the stream on which it failed, where that was being captured into a graph.
    """

    trace: Trace
    specification: str
    device_bytes: int
    outside_bytes: int = 0
    process_bytes: int = 0
    fixed_bytes: int = 0
    budget_bytes: int | None = None
    budget_of_others: int = 0
    growing: tuple[tuple[str, frozenset[int]], ...] = ()
    of_graphs: frozenset[int] = frozenset()
    graphs: int = 0
    pinned: frozenset[int] = frozenset()
    captured_from: int | None = None

    @property
    def as_it_was(self) -> Change:
        """No change."""
        return Change(
            self.specification,
            self.device_bytes,
            self.outside_bytes,
            pinned=self.pinned,
            budget_bytes=None if self.budget_bytes is None else self.budget_bytes - self.budget_of_others,
            captured_from=self.captured_from,
        )


def situation_of(
    recording: Recording,
    specification: str,
    device_bytes: int,
    outside_bytes: int = 0,
    process_bytes: int = 0,
    fixed_bytes: int = 0,
    budget_bytes: int | None = None,
    budget_of_others: int = 0,
) -> Situation:
    """Make a situation of a recording that ends with a failure, and of what its error says.

    Parameters
    ----------
    recording : Recording
        The last event that failed is the failure.
    specification : str
        The resource that had no memory.
    device_bytes, outside_bytes, process_bytes, fixed_bytes, budget_bytes, budget_of_others : int
        As in `Situation`.
    """
    whole = recording.to_trace()
    offset = len(whole) - _played(recording)
    growing = tuple(_growing(recording, offset))
    trace = _with_failure(whole)
    captured_from = _captured_from(trace)
    of_graphs, graphs = _keep_for_graphs(trace, recording, captured_from)
    return Situation(
        trace,
        specification,
        device_bytes,
        outside_bytes,
        process_bytes,
        fixed_bytes,
        budget_bytes,
        budget_of_others,
        growing=growing,
        of_graphs=of_graphs,
        graphs=graphs,
        pinned=_pinned_and_freed(recording, offset),
        captured_from=captured_from,
    )


def _captured_from(trace: Trace) -> int | None:
    """Find the first event of the stream of the last one; None where that was not being captured."""
    if not len(trace) or trace["stream"][-1] < _FIRST_CAPTURED:
        return None
    return int((trace["stream"] == trace["stream"][-1]).argmax())


def _keep_for_graphs(trace: Trace, recording: Recording, captured_from: int | None) -> tuple[frozenset[int], int]:
    """Have each capture whose graph is there still keep the most that it used; gives those events and their number.

    The one that failed is left as it was: it is a capture in the replay, too.
    """
    holds = recording.events[recording.events["event"] == Event.HOLD]
    of_graphs = holds[holds["address"] == 0]
    memory_of, gone = _memory_of_graphs(of_graphs[["stream", "bytes"]].tolist())
    is_captured = trace["stream"] >= _FIRST_CAPTURED
    if captured_from is not None:
        is_captured &= trace["stream"] != trace["stream"][captured_from]
    captured = np.flatnonzero(is_captured)
    kept: set[int] = set()
    used: dict[int, list[int]] = {}  # by stream: bytes in use, and at the most
    live: dict[int, tuple[int, int]] = {}
    for at in captured.tolist():
        _, _, action, pointer, nbytes, stream = trace[at].item()
        stream = memory_of.get(stream - FIRST_STREAM, stream - FIRST_STREAM)
        if stream in gone or nbytes == 0:
            continue
        now = used.setdefault(stream, [0, 0])
        if action == Action.ALLOCATE:
            if pointer in live:  # freed outside of a capture
                its_stream, its_bytes = live.pop(pointer)
                used[its_stream][0] -= its_bytes
            live[pointer] = (stream, nbytes)
            now[0] += nbytes
            more = max(0, -(-now[0] // _PAGE) * _PAGE - now[1])
            now[1] += more
            trace["bytes"][at] = more
            trace["pointer"][at] = _POINTERS_OF_GRAPHS + at
            if more:
                kept.add(at)
        elif pointer in live:
            its_stream, its_bytes = live.pop(pointer)
            used[its_stream][0] -= its_bytes
            trace["bytes"][at] = 0  # nothing is freed
    return frozenset(kept), sum(1 for _, most in used.values() if most)


def _memory_of_graphs(steps: list[tuple[int, int]]) -> tuple[dict[int, int], set[int]]:
    """Name the memory of each capture by one of those that share it; and say which is that of no graph any more.

    The steps are a capture and 0 where its graph is gone, or the later one that goes on with the memory of a branch.
    """
    ended = {capture for capture, later in steps if not later}
    groups: dict[int, set[int]] = {capture: {capture} for step in steps for capture in step if capture}
    has_gone_on = set()
    for capture, later in steps:
        if later and groups[later] is not groups[capture]:
            groups[capture] |= groups[later]
            for each in groups[later]:
                groups[each] = groups[capture]
        if later:
            has_gone_on.add(capture)
    memory_of = {capture: min(group) for capture, group in groups.items()}
    return memory_of, {min(group) for group in groups.values() if group - has_gone_on <= ended}


def _pinned_and_freed(recording: Recording, offset: int) -> frozenset[int]:
    """Find the events of the trace that allocated blocks which are pinned and have been freed since."""
    live: dict[int, int] = {}
    pins: dict[int, tuple[int, int]] = {}  # by address: the event of the block, and how many pins there are
    at = offset
    columns = (recording.events[name].tolist() for name in ("event", "address", "bytes"))
    for event, address, nbytes in zip(*columns, strict=True):
        if event == Event.HOLD and (address in pins or address in live):
            block, count = pins.get(address, (live.get(address, -1), 0))
            pins[address] = (block, count + (1 if nbytes else -1))
            if pins[address][1] <= 0:
                del pins[address]
        elif event == Event.ALLOCATE:
            live[address] = at
        elif event == Event.FREE:
            live.pop(address, None)
        at += event in (Event.ALLOCATE, Event.FREE, Event.FAILURE)
    in_use = set(live.values())
    return frozenset(block for block, _ in pins.values() if block not in in_use)


def _played(recording: Recording) -> int:
    return int(np.isin(recording.events["event"], (Event.ALLOCATE, Event.FREE, Event.FAILURE)).sum())


def _with_failure(trace: Trace) -> Trace:
    """Make an allocation of the last event that failed, the others being skipped; on one thread, which is faster."""
    failures = np.flatnonzero(trace["action"] == Action.FAILURE)
    end = int(failures[-1]) + 1 if len(failures) else len(trace)
    played = trace[:end].copy()  # what came after it knew of the failure
    played["thread"] = 1
    if len(failures):
        played["action"][-1] = Action.ALLOCATE
        played["pointer"][-1] = 1  # no block's address
    return played


def _growing(recording: Recording, offset: int) -> Iterator[tuple[str, frozenset[int]]]:
    """Find those whose blocks stay, about as many bytes all along, and a tenth of all in use.

    A program that has not been through its work once looks like that, too. So it must free next to nothing of what it
    allocates, as one does that forgets it, or the rest must have come and gone meanwhile.

    Where a whole client or tag does not look like that, the blocks of one size may, of a program that has been through
    its work.

    Yields what they allocate, in words, and the events of the trace that allocated the blocks.
    """
    played = recording.events[np.isin(recording.events["event"], (Event.ALLOCATE, Event.FREE, Event.FAILURE))]
    stays = _events_that_stay(played)
    held_before = sum(block[0] for block in recording._held_before().values())
    sign = np.select([played["event"] == Event.ALLOCATE, played["event"] == Event.FREE], [1, -1], 0)
    in_use = held_before + np.cumsum(sign * played["bytes"].astype(np.int64))
    is_allocation = played["event"] == Event.ALLOCATE
    for kind, names in (("tag", recording.tags), ("client", recording.clients)):
        for number in np.unique(played[kind][stays]).tolist():
            if kind == "tag" and number == 0:
                continue
            its = stays[played[kind][stays] == number]
            is_its = is_allocation & (played[kind] == number)
            name = names[number] if number < len(names) else f"number {number}"
            is_kept = len(its) > _KEPT * int(is_its.sum())
            grown = _grown_evenly(played, its, in_use, is_kept)
            if grown is not None:
                yield f"the {kind} '{name}' allocates", frozenset((grown + offset).tolist())
                continue
            for size in _sizes_that_stay(played["bytes"][its]):
                of_size = its[played["bytes"][its] == size]
                if len(of_size) > _KEPT * int((is_its & (played["bytes"] == size)).sum()):
                    grown = _grown_evenly(played, of_size, in_use, is_kept=False)
                    if grown is not None:
                        what = f"the {kind} '{name}' allocates in blocks of {format_bytes(size)}"
                        yield what, frozenset((grown + offset).tolist())


def _sizes_that_stay(sizes: npt.NDArray[np.uint64]) -> list[int]:
    """Give the sizes that have most of the bytes, the largest sums first."""
    each, counts = np.unique(sizes, return_counts=True)
    sums = each.astype(float) * counts
    return [int(size) for size in each[np.argsort(-sums)][:_MOST_SIZES]]


def _grown_evenly(
    played: npt.NDArray[np.void], its: npt.NDArray[np.intp], in_use: npt.NDArray[np.int64], is_kept: bool
) -> npt.NDArray[np.intp] | None:
    """Give those of the blocks that have come evenly from some moment to the end; None where there is none such."""
    events = len(played)
    for begin in (int(its[0]), events // 8, events // 4, events // 2):
        later = its[its >= begin]
        if events - begin < max(_FEWEST_EVENTS, events // 4) or len(later) < _FEWEST_BLOCKS:
            continue
        sizes = played["bytes"][later].astype(float)
        if sizes.sum() < in_use[-1] / 10:
            continue
        share = np.cumsum(sizes) / sizes.sum()
        time = (later - begin) / (events - begin)
        unevenness = max(np.abs(share - time).max(), np.abs(share - sizes / sizes.sum() - time).max())
        if unevenness > _MOST_UNEVEN:
            continue
        grown = np.zeros(events - begin)
        grown[later - begin] = sizes
        others = in_use[begin:].astype(float) - np.cumsum(grown)
        if is_kept or _times_come_and_gone(others, in_use.max() / _LEAST_TO_COME_AND_GO) >= _FEWEST_TIMES:
            return later
    return None


def _times_come_and_gone(in_use: npt.NDArray[np.float64], least: float) -> int:
    """Count how often so many bytes have come and gone."""
    times, low, high, falls = 0, in_use[0], in_use[0], False
    for now in in_use.tolist():
        if falls:
            low = min(low, now)
            if now - low > least:
                falls, high = False, now
        else:
            high = max(high, now)
            if high - now > least:
                times, falls, low = times + 1, True, now
    return times


def _events_that_stay(events: npt.NDArray[np.void]) -> npt.NDArray[np.intp]:
    live: dict[int, int] = {}
    for at, (event, address) in enumerate(zip(events["event"].tolist(), events["address"].tolist(), strict=True)):
        if event == Event.ALLOCATE:
            live[address] = at
        elif event == Event.FREE:
            live.pop(address, None)
    return np.array(sorted(live.values()), dtype=np.intp)
