"""What would have helped: changes that are tried on the simulated device before they are named.

A recording of a run that ran out of memory is replayed as it was, which must fail in the replay too, and then with one
change at a time. Only a change with which the replay passes is advice. They are tried in this order, and the first that
passes is the first advice: what others hold of the device is given back; what only grows is freed; another resource, in
the same memory; a higher limit; more memory.

What came after the failure is not in the recording. A proposed size is therefore a quarter above the smallest that
passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from cenote import mr
from cenote._core.specification import specification_words
from cenote.cli.simulated_machine import LARGEST_BYTES, SimulatedMachine
from cenote.cli.smallest_capacity import smallest_capacity
from cenote.logs.floor import page_floor
from cenote.logs.replay import replay
from cenote.logs.trace import Action, Trace
from cenote.recorder import Event, Recording
from cenote.units import format_bytes, parse_bytes

__all__ = ["Advice", "Change", "Situation", "advice_for", "passes", "situation_of"]

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
_LIMITS = {"pool": "max", "arena": "size", "limiting": "limit"}
_FEWEST_EVENTS = 256
_WINDOWS = 8


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
    """

    specification: str
    device_bytes: int
    outside_bytes: int
    without: frozenset[int] = frozenset()


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
    growing : tuple of (str, frozenset of int)
        Who only grows, in words, and the events of the blocks that stayed.
    """

    trace: Trace
    specification: str
    device_bytes: int
    outside_bytes: int = 0
    process_bytes: int = 0
    growing: tuple[tuple[str, frozenset[int]], ...] = ()

    @property
    def as_it_was(self) -> Change:
        """No change."""
        return Change(self.specification, self.device_bytes, self.outside_bytes)


@dataclass(frozen=True)
class Advice:
    """What would have helped, in a replay.

    Attributes
    ----------
    kind : str
        ``"process"``, ``"cache"``, ``"leak"``, ``"resource"``, ``"limit"`` or ``"memory"``.
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


def situation_of(
    recording: Recording, specification: str, device_bytes: int, outside_bytes: int = 0, process_bytes: int = 0
) -> Situation:
    """Make a situation of a recording that ends with a failure, and of what its error says.

    Parameters
    ----------
    recording : Recording
        The last event that failed is the failure.
    specification : str
        The resource that had no memory.
    device_bytes, outside_bytes, process_bytes : int
        As in `Situation`.
    """
    whole = recording.to_trace()
    growing = tuple(_growing(recording, len(whole) - _played(recording)))
    return Situation(_with_failure(whole), specification, device_bytes, outside_bytes, process_bytes, growing)


def _played(recording: Recording) -> int:
    return int(np.isin(recording.events["event"], (Event.ALLOCATE, Event.FREE, Event.FAILURE)).sum())


def _with_failure(trace: Trace) -> Trace:
    """Make an allocation of the last event that failed, and leave the others out; on one thread, which is faster."""
    failures = np.flatnonzero(trace["action"] == Action.FAILURE)
    keep = np.ones(len(trace), dtype=bool)
    keep[failures[:-1]] = False
    played = trace.copy()
    played["thread"] = 1
    if len(failures):
        played["action"][failures[-1]] = Action.ALLOCATE
        played["pointer"][failures[-1]] = 1  # no block's address
        keep[failures[-1] + 1 :] = False  # what came after it knew of the failure
    else:
        keep[:] = True
    return played[keep]


def _growing(recording: Recording, offset: int) -> Iterator[tuple[str, frozenset[int]]]:
    """Find those whose blocks stay, about as many bytes in each part of the recording, and a tenth of all in use.

    Yields who that is, and the events of the trace that allocated the blocks.
    """
    played = recording.events[np.isin(recording.events["event"], (Event.ALLOCATE, Event.FREE, Event.FAILURE))]
    if len(played) < _FEWEST_EVENTS:
        return
    stays = _events_that_stay(played)
    in_use = int(played["bytes"][stays].sum()) + sum(block[0] for block in recording._held_before().values())
    parts = np.minimum(np.arange(len(played)) * _WINDOWS // len(played), _WINDOWS - 1)
    for kind, names in (("tag", recording.tags), ("client", recording.clients)):
        for number in np.unique(played[kind][stays]).tolist():
            if kind == "tag" and number == 0:
                continue
            its = stays[played[kind][stays] == number]
            sums = np.bincount(parts[its], weights=played["bytes"][its].astype(float), minlength=_WINDOWS)
            if sums.sum() < in_use / 10 or sums.min() < sums.mean() / 3 or sums.max() > 3 * sums.mean():
                continue
            name = names[number] if number < len(names) else f"number {number}"
            yield f"{kind} '{name}'", frozenset((its + offset).tolist())


def _events_that_stay(events: npt.NDArray[np.void]) -> npt.NDArray[np.intp]:
    live: dict[int, int] = {}
    for at, (event, address) in enumerate(zip(events["event"].tolist(), events["address"].tolist(), strict=True)):
        if event == Event.ALLOCATE:
            live[address] = at
        elif event == Event.FREE:
            live.pop(address, None)
    return np.array(sorted(live.values()), dtype=np.intp)


def passes(trace: Trace, change: Change, machine: SimulatedMachine) -> bool:
    """Replay a trace with a change, on a device of its size."""
    if change.device_bytes - change.outside_bytes <= 0:
        return False
    machine.resize(change.device_bytes - change.outside_bytes)
    words = [word for word in specification_words(change.specification) if _kind(word) not in _NOT_REPLAYED]
    kept = trace
    if change.without:
        left_out = np.zeros(len(trace), dtype=bool)
        left_out[[at for at in change.without if at < len(trace)]] = True
        kept = trace[~left_out]
    try:
        replay(kept, mr.from_spec(" | ".join(words), 0))
    except (MemoryError, RuntimeError):
        return False
    return True


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
        *_other_resource(situation, tried),
    ]
    limit = _higher_limit(situation, tried)
    if limit is not None:
        found.append(limit)
    if not found:
        found += _more_memory(situation, tried)
    return found


def _without_others(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    outside, processes = situation.outside_bytes, min(situation.process_bytes, situation.outside_bytes)
    if processes and tried(change := replace(situation.as_it_was, outside_bytes=outside - processes)):
        yield Advice(
            "process",
            f"Other processes hold {format_bytes(processes)} of the device: without them this run would have passed.",
            change,
        )
    elif outside - processes and tried(change := replace(situation.as_it_was, outside_bytes=processes)):
        yield Advice(
            "cache",
            f"{format_bytes(outside - processes)} of the device are held beside cenote, as by a library's own cache: "
            "given back, as by a pressure handler, this run would have passed.",
            change,
        )


def _without_growth(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    for who, events in situation.growing:
        if tried(change := replace(situation.as_it_was, without=events)):
            nbytes = int(situation.trace["bytes"][[at for at in events if at < len(situation.trace)]].sum())
            yield Advice(
                "leak",
                f"What the {who} allocates is not freed: it has grown by {format_bytes(nbytes)} in {len(events):,} "
                "blocks all along. With these freed this run would have passed.",
                change,
            )
            return


def _other_resource(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    words = specification_words(situation.specification)
    adaptors = [word for word in words if _kind(word) in _ADAPTORS]
    own = [_kind(word) for word in words if _kind(word) not in _ADAPTORS]
    limit = _limit_of(situation.specification)
    is_limited = limit is not None and _limiting_word(words) != "limiting"
    have = limit if limit is not None and is_limited else situation.device_bytes - situation.outside_bytes
    peak = page_floor(situation.trace).peak_bytes
    for candidate in CANDIDATES:
        kinds = [_kind(word) for word in specification_words(candidate)]
        if own in (kinds, kinds[:1] if candidate == CANDIDATES[0] else None):
            continue
        if is_limited and kinds[0] != "pool":
            continue  # nothing limits what it holds

        def within(nbytes: int, candidate: str = candidate) -> Change:
            specification = _limited(candidate, nbytes) if is_limited else candidate
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


def _limited(candidate: str, limit: int) -> str:
    """Give a pool the limit that the resource in force has."""
    return " | ".join([f"pool:max={_spelled(limit)}", *specification_words(candidate)[1:]])


def _higher_limit(situation: Situation, tried: Callable[[Change], bool]) -> Advice | None:
    limit = _limit_of(situation.specification)
    most = situation.device_bytes - situation.outside_bytes
    if limit is None or limit >= most:
        return None

    def with_limit(nbytes: int) -> Change:
        return replace(situation.as_it_was, specification=_with_limit(situation.specification, nbytes))

    found = smallest_capacity(lambda nbytes: tried(with_limit(nbytes)), limit, min(2 * limit, most), most)
    if found is None:
        return None
    proposed = min(_rounded(int(found.nbytes * _MARGIN)), most // 256 * 256)
    if not tried(change := with_limit(proposed)):
        change = with_limit(found.nbytes)
    return Advice(
        "limit",
        f"With '{change.specification}' this run would have passed: the smallest limit that does is "
        f"{format_bytes(found.nbytes)}, {format_bytes(found.nbytes - limit)} above the present one.",
        change,
        found.nbytes,
    )


def _more_memory(situation: Situation, tried: Callable[[Change], bool]) -> Iterator[Advice]:
    words = specification_words(situation.specification)
    adaptors = [word for word in words if _kind(word) in _ADAPTORS and _kind(word) != "limiting"]
    specification = " | ".join([*adaptors, CANDIDATES[0]])

    def on(nbytes: int) -> Change:
        return replace(situation.as_it_was, specification=specification, device_bytes=nbytes + situation.outside_bytes)

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
        on(_rounded(int(found.nbytes * _MARGIN))),
        found.nbytes,
    )


def _kind(word: str) -> str:
    return word.partition(":")[0].strip()


def _parameters(word: str) -> dict[str, str]:
    given = (each.partition("=") for each in word.partition(":")[2].split(",") if each.strip())
    return {name.strip(): value.strip() for name, _, value in given}


def _limiting_word(words: list[str]) -> str | None:
    return next((_kind(w) for w in words if _kind(w) in _LIMITS and _LIMITS[_kind(w)] in _parameters(w)), None)


def _limit_of(specification: str) -> int | None:
    """Give the smallest limit of a specification in bytes; None where it has none, or one in percent."""
    limits = []
    for word in specification_words(specification):
        value = _parameters(word).get(_LIMITS.get(_kind(word), ""))
        if value is not None and not value.endswith("%"):
            limits.append(parse_bytes(value))
    return min(limits, default=None)


def _with_limit(specification: str, nbytes: int) -> str:
    """Raise each limit that is below so many bytes."""
    words = []
    for word in specification_words(specification):
        name = _LIMITS.get(_kind(word), "")
        parameters = _parameters(word)
        if name in parameters and not parameters[name].endswith("%") and parse_bytes(parameters[name]) < nbytes:
            parameters[name] = _spelled(nbytes)
            word = f"{_kind(word)}:{','.join(f'{key}={value}' for key, value in parameters.items())}"
        words.append(word)
    return " | ".join(words)


def _rounded(nbytes: int) -> int:
    """Round a size up to a multiple of about a hundredth of it, which is easily read."""
    step = max(1 << 20, 1 << max(0, nbytes.bit_length() - 6))
    return -(-nbytes // step) * step


def _spelled(nbytes: int) -> str:
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if nbytes % size == 0:
            return f"{nbytes // size}{unit}"
    return str(nbytes)
