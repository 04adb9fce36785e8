"""What would have helped: changes that are tried on the simulated device before they are named.

A recording of a run that ran out of memory is replayed as it was, which must fail in the replay too, and then with one
change at a time. Only a change with which the replay passes is advice. They are tried in this order, and the first that
passes is the first advice: what others hold of the device is given back; what only grows is freed; pins of blocks that
are not in use are taken back; what other streams have freed is given back before a capture, in which nothing can be
waited for; graphs are destroyed; another resource, in the same memory; a higher limit or budget; more memory.

What came after the failure is not in the recording. A proposed size is therefore a quarter above the smallest that
passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from cenote import budgets, mr
from cenote._core.memory_resource import first_in_stack
from cenote._core.specification import specification_words
from cenote.cli.simulated_machine import LARGEST_BYTES, SimulatedMachine, begin_capture, end_capture
from cenote.cli.situation import Change, Situation
from cenote.cli.smallest_capacity import smallest_capacity
from cenote.cli.specification_limits import (
    kind_of,
    limit_of,
    limited,
    limiting_kind,
    rounded_up,
    with_limit,
)
from cenote.logs.floor import page_floor
from cenote.logs.replay import replay
from cenote.logs.trace import Action, Trace, bytes_in_use
from cenote.units import format_bytes

__all__ = ["CANDIDATES", "Advice", "advice_for", "passes"]

CANDIDATES = ("pool | virtual", "pool | cuda", "async", "cuda")
"""Resources that are tried in the place of the one in force."""

_MARGIN = 1.25

_LEAST_SPARE = {"pool": 0.01}
_LEAST_SPARE_OF_OTHERS = 0.1
"""Of the memory there is: what another resource must have to spare, as what comes after the failure is not recorded.
One that is no pool takes far more driver calls, so that it has to be worth it."""

_ADAPTORS = (
    *("statistics", "logging", "tracking", "limiting", "failure_callback", "prefetch", "aligned", "thread_safe"),
    "guard",
)
_NOT_REPLAYED = ("logging", "tracking", "failure_callback", "prefetch")


@dataclass(frozen=True)
class Advice:
    """What would have helped, in a replay.

    Attributes
    ----------
    kind : str
        ``"process"``, ``"cache"``, ``"leak"``, ``"pin"``, ``"stream"``, ``"graph"``, ``"resource"``, ``"limit"`` or
        ``"memory"``.
    text : str
        One sentence with its figures.
    change : Change
        What was replayed.
    needed_bytes : int or None
        The smallest limit, or device, with which the replay passes, where that is the advice.
    """

    kind: str
    text: str
    change: Change = field(repr=False)
    needed_bytes: int | None = None

    @property
    def specification(self) -> str:
        """The resource to use, as it can be pasted."""
        return self.change.specification


def passes(trace: Trace, change: Change, machine: SimulatedMachine) -> bool:
    """Replay a trace with a change, on a device of its size."""
    if change.device_bytes - change.outside_bytes <= 0:
        return False
    machine.resize(change.device_bytes - change.outside_bytes)
    budgets.budget(change.budget_bytes)
    words = [word for word in specification_words(change.specification) if kind_of(word) not in _NOT_REPLAYED]
    kept = np.ones(len(trace), dtype=bool)
    kept[[at for at in change.without if at < len(trace)]] = False
    try:
        resource: Any = mr.from_spec(" | ".join(words), 0)
        is_made = kept & (trace["action"] == Action.ALLOCATE) & (trace["bytes"] > 0)
        before = np.cumsum(is_made) - is_made  # how many are made before each event
        captured = None if change.captured_from is None else int(before[change.captured_from])
        with _Retold(resource, before[sorted(change.pinned)].tolist(), captured, change.trims) as retold:
            replay(trace[kept], retold)
    except (MemoryError, RuntimeError):
        return False
    finally:
        budgets.budget(None)
    return True


class _Retold:
    """A resource that does what a trace does not tell: it pins some of its blocks, and has a stream captured.

    Parameters
    ----------
    resource : DeviceMemoryResource
        Any.
    pinned : list of int
        The allocations, by their numbers, whose blocks the first pool of its stack pins.
    captured : int or None
        The allocation with which the capture of its stream begins.
    trims : bool
        Whether all that is free is given back before that.
    """

    def __init__(self, resource: mr.DeviceMemoryResource, pinned: list[int], captured: int | None, trims: bool) -> None:
        self._resource = resource
        self.deallocate = resource.deallocate
        self.device = resource.device
        self._pool = first_in_stack(resource, mr.PoolMemoryResource)
        self._pinned = frozenset(pinned)
        self._captured = captured
        self._trims = trims
        self._made = 0
        self._stream: Any = None

    def __enter__(self) -> _Retold:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            end_capture(self._stream)

    def allocate(self, nbytes: int, stream: Any) -> int:
        if self._made == self._captured:
            if self._trims:
                self._resource.trim(0, True)
            begin_capture(stream)
            self._stream = stream
        address = self._resource.allocate(nbytes, stream)
        if self._made in self._pinned and self._pool is not None:
            self._pool.pin(address)
        self._made += 1
        return address


def advice_for(
    situation: Situation, machine: SimulatedMachine, progress: Callable[[str], None] = lambda _: None
) -> list[Advice]:
    """Try what could help, in the order of this module; one piece of advice of each kind.

    Parameters
    ----------
    situation : Situation
        The run.
    machine : SimulatedMachine
        Where it is replayed.
    progress : callable, optional
        Is told what is tried.

    Returns
    -------
    list of Advice
        Empty where the failure does not come up in the replay, so that nothing can be proved.
    """

    def tried(change: Change) -> bool:
        progress(change.specification)
        return passes(situation.trace, change, machine)

    was = situation.as_it_was
    if tried(was):
        return []
    found = [
        *_without_others(situation, tried),
        *_without_growth(situation, tried),
        *_without_pins(situation, tried),
        *_trimmed_before_the_capture(situation, tried),
        *_without_graphs(situation, tried),
        *_other_resource(situation, tried),
    ]
    higher = _higher_budget(situation, tried) or _higher_limit(situation, tried)
    if higher is not None:
        found.append(higher)
    if not found:
        found += _more_memory(situation, tried)
    return found


def _without_others(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    outside, processes = situation.outside_bytes, min(situation.process_bytes, situation.outside_bytes)
    cached = max(0, outside - processes - situation.fixed_bytes)
    if processes and tried(change := replace(situation.as_it_was, outside_bytes=outside - processes)):
        yield Advice(
            "process",
            f"Other processes hold {format_bytes(processes)} of the device: without them this run would have passed.",
            change,
        )
    elif cached and tried(change := replace(situation.as_it_was, outside_bytes=outside - cached)):
        yield Advice(
            "cache",
            f"{format_bytes(cached)} of the device are held beside cenote, as by a library's own cache: "
            "given back, as by a pressure handler, this run would have passed.",
            change,
        )


def _without_growth(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    for what, events in situation.growing:
        if tried(change := replace(situation.as_it_was, without=events)):
            nbytes = int(situation.trace["bytes"][[at for at in events if at < len(situation.trace)]].sum())
            yield Advice(
                "leak",
                f"What {what} is not freed: it has grown by {format_bytes(nbytes)} in {len(events):,} "
                "blocks all along. With these freed this run would have passed.",
                change,
            )
            return


def _without_pins(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    if situation.pinned and tried(change := replace(situation.as_it_was, pinned=frozenset())):
        nbytes = int(situation.trace["bytes"][sorted(situation.pinned)].sum())
        yield Advice(
            "pin",
            f"{len(situation.pinned):,} blocks of {format_bytes(nbytes)} are freed but pinned, which keeps their pages "
            "where they are: unpinned, this run would have passed.",
            change,
        )


def _trimmed_before_the_capture(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    if situation.captured_from is None or not tried(change := replace(situation.as_it_was, trims=True)):
        return
    in_use = bytes_in_use(situation.trace[: situation.captured_from])
    free = int(in_use.max(initial=0)) - (int(in_use[-1]) if len(in_use) else 0)
    yield Advice(
        "stream",
        f"{format_bytes(free)} were freed before the graph was captured, but on streams whose work a capture cannot "
        "wait for: given back before it, with trim(wait=True) of the resource, this run would have passed.",
        change,
    )


def _without_graphs(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    if situation.of_graphs and tried(change := replace(situation.as_it_was, without=situation.of_graphs)):
        nbytes = int(situation.trace["bytes"][sorted(situation.of_graphs)].sum())
        graphs = "1 graph holds" if situation.graphs == 1 else f"{situation.graphs:,} graphs hold"
        yield Advice(
            "graph",
            f"{graphs} {format_bytes(nbytes)} that nothing else can use: destroyed, or captured with less, this run "
            "would have passed.",
            change,
        )


def _other_resource(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    words = specification_words(situation.specification)
    adaptors = [word for word in words if kind_of(word) in _ADAPTORS]
    own = [kind_of(word) for word in words if kind_of(word) not in _ADAPTORS]
    limit = limit_of(situation.specification)
    is_limited = limit is not None and limiting_kind(words) != "limiting"
    have = limit if limit is not None and is_limited else situation.device_bytes - situation.outside_bytes
    budget = situation.as_it_was.budget_bytes
    have = have if budget is None else min(have, budget)
    peak = page_floor(situation.trace).peak_bytes
    for candidate in CANDIDATES:
        kinds = [kind_of(word) for word in specification_words(candidate)]
        if own in (kinds, kinds[:1] if candidate == CANDIDATES[0] else None):
            continue
        if is_limited and kinds[0] != "pool":
            continue  # nothing limits what it holds

        def within(nbytes: int, candidate: str = candidate) -> Change:
            specification = limited(candidate, nbytes) if is_limited else candidate
            device = situation.device_bytes if is_limited else nbytes + situation.outside_bytes
            whole = " | ".join([*adaptors, specification])
            return replace(situation.as_it_was, specification=whole, device_bytes=device)

        if not tried(change := within(have)):
            continue
        found = smallest_capacity(partial(_passes_within, tried, within), peak, have, have)
        if found is None or have - found.nbytes < _LEAST_SPARE.get(kinds[0], _LEAST_SPARE_OF_OTHERS) * have:
            continue  # what comes after the failure would hardly fit
        yield Advice(
            "resource",
            f"With '{change.specification}' this run would have passed in the same memory, with "
            f"{format_bytes(have - found.nbytes)} to spare.",
            change,
        )
        return


def _passes_within(tried: Callable[[Change], bool], within: Callable[[int], Change], nbytes: int) -> bool:
    return tried(within(nbytes))


def _higher_budget(situation: Situation, tried: Callable[[Change], bool]) -> Advice | None:
    ours = situation.as_it_was.budget_bytes
    most = situation.device_bytes - situation.outside_bytes
    if ours is None or ours >= most:
        return None

    def within(nbytes: int) -> Change:
        return replace(situation.as_it_was, budget_bytes=nbytes)

    found = smallest_capacity(lambda nbytes: tried(within(nbytes)), ours, min(2 * ours, most), most)
    if found is None:
        return None
    proposed = min(rounded_up(int(found.nbytes * _MARGIN)), most)
    if not tried(change := within(proposed)):
        change = within(proposed := found.nbytes)
    others = situation.budget_of_others
    budget = format_bytes(proposed + others)
    least = found.nbytes + others
    needed = _needed(least, proposed + others, ours + others)
    return Advice("limit", f"With a budget of {budget} this run would have passed. {needed}", change, least)


def _needed(nbytes: int, proposed: int, present: int) -> str:
    """Say what of a proposed limit is needed, and what is margin."""
    text = f"It needs at least {format_bytes(nbytes)}, {format_bytes(nbytes - present)} above the present limit"
    margin = proposed - nbytes
    return f"{text}; the other {format_bytes(margin)} are a margin." if margin else f"{text}."


def _higher_limit(situation: Situation, tried: Callable[[Change], bool]) -> Advice | None:
    limit = limit_of(situation.specification)
    most = situation.device_bytes - situation.outside_bytes
    if limit is None or limit >= most:
        return None

    def within(nbytes: int) -> Change:
        return replace(situation.as_it_was, specification=with_limit(situation.specification, nbytes))

    found = smallest_capacity(lambda nbytes: tried(within(nbytes)), limit, min(2 * limit, most), most)
    if found is None:
        return None
    proposed = min(rounded_up(int(found.nbytes * _MARGIN)), most // 256 * 256)
    if not tried(change := within(proposed)):
        change = within(proposed := found.nbytes)
    return Advice(
        "limit",
        f"With '{change.specification}' this run would have passed. {_needed(found.nbytes, proposed, limit)}",
        change,
        found.nbytes,
    )


def _more_memory(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    words = specification_words(situation.specification)
    adaptors = [word for word in words if kind_of(word) in _ADAPTORS and kind_of(word) != "limiting"]
    specification = " | ".join([*adaptors, CANDIDATES[0]])

    def on(nbytes: int) -> Change:
        device_bytes = nbytes + situation.outside_bytes
        was = replace(situation.as_it_was, budget_bytes=None)
        return replace(was, specification=specification, device_bytes=device_bytes)

    floor = page_floor(situation.trace)
    found = smallest_capacity(lambda nbytes: tried(on(nbytes)), floor.peak_bytes, 2 * floor.nbytes, LARGEST_BYTES)
    if found is None:
        return
    have = situation.device_bytes - situation.outside_bytes
    yield Advice(
        "memory",
        f"Nothing but more memory helps: {format_bytes(floor.peak_bytes)} were live at once, and at least "
        f"{format_bytes(found.nbytes)} are needed with '{specification}', {format_bytes(max(0, found.nbytes - have))} "
        "more than there are.",
        on(rounded_up(int(found.nbytes * _MARGIN))),
        found.nbytes,
    )
