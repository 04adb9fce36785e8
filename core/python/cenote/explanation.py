"""Why memory ran out: what an error, a recording or a log says, put together.

::

    try:
        train()
    except cenote.OutOfMemoryError as error:
        explanation = cenote.explain(error)
        print(explanation)
        explanation.save("out-of-memory.html")
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cenote import recorder
from cenote._beside import bytes_of_libraries, bytes_of_processes
from cenote._core.clients import holding_at_sites
from cenote._core.registry import find_per_device_resource
from cenote.budgets import get_budget
from cenote.driver import is_simulated, memory_info
from cenote.errors import CudaError, Holder, OutOfMemoryError, ReliefStep
from cenote.logs.trace import path_argument
from cenote.recorder import Event, Recording
from cenote.units import format_bytes

__all__ = ["Advice", "Explanation", "Growth", "Part", "explain"]

KINDS_OF_HOLDERS = (
    ("client", "client", ""),
    ("tag", "tag", "(no tag)"),
    ("site", "call site", "(not sampled)"),
)
"""What holders there are, what people call them, and those that have no name."""

_SHOWN = 5

_OF_CLIENTS = "held by clients"
_HELD = "held by the resource beside that"
_UNUSED = "held by the resource, unused"
_FREE = "free"
_NOT_SAMPLED = "(not sampled)"

_WITHOUT_CLIENT = "in use without a client, and what rounding adds"
_OF_THE_RESOURCE = (_OF_CLIENTS, _WITHOUT_CLIENT, _UNUSED, _HELD, _FREE)
_OTHER_PROCESSES = "other processes"
_OTHER_RESOURCES = "held by other resources of cenote"
_OF_THE_PROCESS = "contexts, modules and libraries of this process beside cenote"
_REST = "the rest: contexts, libraries beside cenote, and what nobody tells"
_WITH_CONTEXTS = (_OF_THE_PROCESS, _REST)
_LARGEST_CONTEXT = 2 << 30
"""Bytes. What is held beside cenote may be a context as far as that, and advice does not count on it; contexts of the
simulated device take none."""
_REST_BESIDE_NVML = "the rest: what the driver keeps, and nobody tells"


@dataclass(frozen=True)
class Part:
    """A part of a device's memory.

    Attributes
    ----------
    name : str
        What it is.
    bytes : int
        The parts of one account add up to the device's memory.
    """

    name: str
    bytes: int


@dataclass(frozen=True)
class Growth:
    """A client or a tag that has only grown while it was recorded: a leak looks like that, and so does a warm-up.

    Attributes
    ----------
    kind : str
        ``"client"`` or ``"tag"``.
    name : str
        Of which.
    bytes : int
        By how much.
    held_bytes : int
        What it holds.
    """

    kind: str
    name: str
    bytes: int
    held_bytes: int


@dataclass(frozen=True)
class Advice:
    """What would have helped: the recorded run passes with it on the simulated device.

    Attributes
    ----------
    kind : str
        ``"process"``: another process holds the memory. ``"cache"``: it is held beside cenote in this one.
        ``"leak"``: it is not freed. ``"pin"``: freed blocks are pinned. ``"stream"``: other streams have freed it,
        and a capture cannot wait for them. ``"graph"``: graphs hold it. ``"resource"``: another resource, in the same
        memory. ``"limit"``: a higher limit, or budget. ``"memory"``: nothing but a larger device.
    text : str
        One sentence with its figures.
    specification : str
        The resource to use, as it can be pasted.
    needed_bytes : int or None
        The smallest limit, or device, with which the recorded run passes, where that is the advice.
    """

    kind: str
    text: str
    specification: str
    needed_bytes: int | None


@dataclass(frozen=True)
class Explanation:
    """What is known of a failed allocation, or of a moment.

    ``print`` shows it as text, Jupyter as a table, and `save` as a page.

    Attributes
    ----------
    message : str
        The error's text; empty without an error.
    why : str
        One sentence.
    device : int
        Whose memory it is about.
    resource : str
        The specification of the resource that had no memory; empty where it is not known.
    requested : int or None
        Bytes that were asked for; None where nothing failed.
    account : tuple of Part
        How the device's memory is divided up. Empty where nobody can tell.
    holders : tuple of Holder
        Clients, then tags, then call sites where they are sampled (`cenote.sample_sites`), the largest first.
    growing : tuple of Growth
        Those that have only grown while they were recorded: tags, then clients, the largest growth
        first.
    steps : tuple of ReliefStep
        What was tried.
    recording : Recording
        The events.
    advice : tuple of Advice
        What would have helped, the first to be tried first; empty unless it was asked for.
    """

    message: str
    why: str
    device: int
    resource: str
    requested: int | None
    account: tuple[Part, ...]
    holders: tuple[Holder, ...]
    growing: tuple[Growth, ...]
    steps: tuple[ReliefStep, ...]
    recording: Recording = field(repr=False)
    advice: tuple[Advice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give all but the recording as numbers, texts, lists and dicts."""
        return {
            **{name: getattr(self, name) for name in ("message", "why", "device", "resource", "requested")},
            **{name: [asdict(each) for each in getattr(self, name)] for name in _LISTS},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page of it: one HTML file that needs no other.

        Parameters
        ----------
        path : path-like
            The file; what was there is replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        ModuleNotFoundError
            Without matplotlib; ``pip install 'cenote[cli]'`` brings it.
        """
        from cenote.report import write_report

        write_report(path, self)

    def _repr_html_(self) -> str:
        from cenote.report import table_of

        return table_of(self)

    def __str__(self) -> str:
        lines = [self.why]
        if self.requested is not None:
            lines.append(f"Asked for: {format_bytes(self.requested)} on device {self.device}, of '{self.resource}'")
        if self.account:
            lines += ["", f"The memory of device {self.device}:"]
            lines += [f"  {format_bytes(part.bytes):>12}  {part.name}" for part in self.account]
        for kind, heading, nameless in KINDS_OF_HOLDERS:
            lines += self._lines_of(kind, heading, nameless)
        if self.growing:
            lines += ["", "Only growing while it was recorded:"]
            for each in self.growing[:_SHOWN]:
                now = format_bytes(each.held_bytes)
                lines.append(f"  {format_bytes(each.bytes):>12}  {each.kind} {each.name or '(no tag)'}, now {now}")
        if self.steps:
            lines += ["", "Tried before it failed:"]
            lines += [f"  {step.name}: {text_of_step(step)}" for step in self.steps]
        if self.advice:
            lines += ["", "Tried on the simulated device:", *(f"  {each.text}" for each in self.advice)]
        return "\n".join(lines)

    def _lines_of(self, kind: str, heading: str, nameless: str) -> list[str]:
        holders = [each for each in self.holders if each.kind == kind]
        if not holders:
            return []
        lines = ["", f"Held by {heading}:"]
        for each in holders[:_SHOWN]:
            blocks = "1 block" if each.blocks == 1 else f"{each.blocks:,} blocks"
            lines.append(f"  {format_bytes(each.bytes):>12}  {each.name or nameless}, {blocks}")
        if rest := holders[_SHOWN:]:
            lines.append(f"  {format_bytes(sum(each.bytes for each in rest)):>12}  {len(rest)} others")
        return lines


_LISTS = ("account", "holders", "growing", "steps", "advice")


def text_of_step(step: ReliefStep) -> str:
    """Say what a step gave."""
    if step.why_not:
        return step.why_not
    return "done; it was not enough" if step.freed_bytes is None else f"freed {format_bytes(step.freed_bytes)}"


def explain(
    what: BaseException | Recording | str | os.PathLike[str] | None = None,
    *,
    device: int | None = None,
    advice: bool = False,
) -> Explanation:
    """Put together what is known of memory that ran out.

    Parameters
    ----------
    what : exception, Recording, path-like or None
        An error: `OutOfMemoryError`, or that of a framework that allocates from cenote, of which the recorder knows the
        figures. Or a recording, or the file of one. Without it, the process as it is now.
    device : int, optional
        The device, where an error does not say it; that of the error or the recording, else 0.
    advice : bool, default False
        Try what would have helped, in another process on the simulated device: seconds to minutes. Only an
        `OutOfMemoryError` knows enough for that, and only while the recorder knows the beginning of the run.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError
        If `what` is none of these, or `device` no int.
    ValueError
        If `device` is none that there can be.
    cenote.recorder.RecordingError
        If the file is no recording.
    """
    if device is not None:
        recorder.device_argument(device)
    if isinstance(what, Recording):
        return _of_recording(what)
    if isinstance(what, str | os.PathLike):
        return _of_recording(recorder.read(path_argument(what)))
    if what is not None and not isinstance(what, BaseException):
        raise TypeError(f"what to explain must be an error, a recording or a path, not {type(what).__name__}")
    error = _found_in(what)
    number = device if device is not None else error.device if error is not None and error.device is not None else 0
    recording = recorder.snapshot(number)
    if error is not None:
        explanation = _of_error(error, number, recording)
        return replace(explanation, advice=_advice_for(explanation, error)) if advice else explanation
    explanation = _of_recording(recording, what is not None)
    explanation = replace(explanation, holders=(*explanation.holders, *_sites(number)))
    if what is None:
        resource = find_per_device_resource(number)
        return _with_account(explanation, number, "" if resource is None else resource.specification)
    return explanation


def _found_in(error: BaseException | None) -> OutOfMemoryError | None:
    """Find the error of cenote's that another one was raised from."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OutOfMemoryError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _of_error(error: OutOfMemoryError, device: int, recording: Recording) -> Explanation:
    explanation = Explanation(
        message=str(error),
        why=_why(error),
        device=device,
        resource=error.resource,
        requested=error.requested,
        account=_account(device, error.device_free, error.device_total, error.held, error.in_use, error.holders),
        holders=error.holders,
        growing=_growing(recording),
        steps=error.steps,
        recording=recording,
    )
    return explanation


def _advice_for(explanation: Explanation, error: OutOfMemoryError) -> tuple[Advice, ...]:
    """Have ``cenote advise`` try it, where the device is a simulated one whatever this process has."""
    recording = explanation.recording
    if not recording.knows_the_beginning or error.device_free is None or error.device_total is None:
        return ()
    parts = {part.name: part.bytes for part in explanation.account}
    processes = parts.get(_OTHER_PROCESSES, 0)
    sizes = {
        "memory": error.device_total,
        "outside": sum(nbytes for name, nbytes in parts.items() if name not in _OF_THE_RESOURCE),
        "processes": processes,
        "contexts": 0 if is_simulated() else min(_LARGEST_CONTEXT, sum(parts.get(name, 0) for name in _WITH_CONTEXTS)),
        **_budget(explanation.device, error.held, error.holders),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "failed.rec"
        recording.save(file)
        told = subprocess.run(
            [
                *(sys.executable, "-m", "cenote", "advise", str(file), "--json", "--resource", explanation.resource),
                *(f"--{name}={nbytes}" for name, nbytes in sizes.items() if nbytes is not None),
            ],
            env={**os.environ, "CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "", "CENOTE_RECORDER": "off"}
            | {"CENOTE_BUDGET": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    if told.returncode != 0:
        raise RuntimeError(f"the advice failed: {told.stderr.strip()}")
    return tuple(Advice(**each) for each in json.loads(told.stdout)["advice"])


def _budget(device: int, held: int | None, holders: tuple[Holder, ...]) -> dict[str, int]:
    """Give the budget of the process, and what of it others than a resource hold; nothing where there is none.

    Where the resource does not know what it holds, it is taken to hold the clients' bytes.
    """
    budget = get_budget(device)
    if budget.limit is None:
        return {}
    ours = sum(each.bytes for each in holders if each.kind == "client") if held is None else held
    others = budget.shared - budget.held + max(0, budget.held - ours)
    return {"budget": budget.limit, "budget-of-others": min(others, budget.limit)}


def _of_recording(recording: Recording, is_failure: bool = True) -> Explanation:
    failures = recording.events[recording.events["event"] == Event.FAILURE] if is_failure else recording.events[:0]
    requested = int(failures["bytes"][-1]) if len(failures) else None
    holders = _holders_in(recording)
    held = sum(each.bytes for each in holders if each.kind == "client")
    if requested is None:
        why = f"Clients hold {format_bytes(held)} of device {recording.device}; no allocation has failed."
    else:
        why = (
            f"{format_bytes(requested)} were asked for in vain, {_ago(recording, int(failures['time_ns'][-1]))}; "
            f"clients hold {format_bytes(held)} of device {recording.device}."
        )
    return Explanation("", why, recording.device, "", requested, (), holders, _growing(recording), (), recording)


def _ago(recording: Recording, time_ns: int) -> str:
    seconds = max(0.0, (recording.time_ns - time_ns) / 1e9)
    return f"{seconds:.1f} s before the end of the recording"


def _with_account(explanation: Explanation, device: int, resource: str) -> Explanation:
    current = find_per_device_resource(device)
    figures = None if current is None else current.state()
    try:
        free, total = memory_info(device)
    except CudaError:
        return explanation
    held, in_use = (None, None) if figures is None else (figures.held, figures.in_use)
    account = _account(device, free, total, held, in_use, explanation.holders)
    return replace(explanation, account=account, resource=resource)


def _why(error: OutOfMemoryError) -> str:
    """Say in a sentence what the figures say."""
    need = error.rounded or error.requested
    asked = format_bytes(error.requested)
    in_use, limit, total = error.in_use, error.limit, error.device_total
    if total is not None and need > total:
        return f"{asked} is more than the device has: {format_bytes(total)}."
    if limit is not None and need > limit:
        return f"{asked} is more than the resource may hold: its limit is {format_bytes(limit)}."
    if (free := _free_beside_a_capture(error)) is not None and free >= need:
        return (
            f"{format_bytes(free)} are free, but other streams have freed them, and beside a capture into a graph "
            "nothing may be waited for."
        )
    if limit is not None and in_use is not None and (total is None or limit <= total):
        if in_use + need > limit:
            short = format_bytes(in_use + need - limit)
            return f"{format_bytes(in_use)} of {format_bytes(limit)} are in use, so that {asked} is {short} too much."
        if error.device_free is None or error.device_free >= need:
            return (
                f"{format_bytes(limit - in_use)} of {format_bytes(limit)} are not in use, but no run of free memory is "
                f"as long as {asked}."
            )
    if error.device_free is not None and error.held is not None and in_use is not None and total is not None:
        unused = error.held - in_use
        if unused + error.device_free < need:
            others = max(0, total - error.device_free - error.held)
            return (
                f"The device has {format_bytes(error.device_free)} left. The resource has {format_bytes(in_use)} in "
                f"use, and {format_bytes(others)} are taken by others: libraries beside cenote, contexts, other "
                "processes."
            )
        return (
            f"{format_bytes(unused + error.device_free)} are free, of which {format_bytes(unused)} lie in the "
            f"resource, but in pieces: no run of them is as long as {asked}."
        )
    return f"The resource had no {asked} to give."


def _free_beside_a_capture(error: OutOfMemoryError) -> int | None:
    """Give what is free in the resource and on the device; None where no step was skipped for the sake of a capture."""
    if error.in_use is None or error.held is None or not any("captured" in step.why_not for step in error.steps):
        return None
    room = error.device_free or 0
    if error.limit is not None:
        room = min(room, error.limit - error.held)
    return error.held - error.in_use + max(0, room)


def _account(
    device: int,
    free: int | None,
    total: int | None,
    held: int | None,
    in_use: int | None,
    holders: tuple[Holder, ...],
) -> tuple[Part, ...]:
    """Divide a device's memory up, so that the parts add up to all of it."""
    if free is None or total is None:
        return ()
    used = total - free
    of_clients = sum(each.bytes for each in holders if each.kind == "client")
    ours = min(of_clients if held is None else held, used)
    taken = ours if in_use is None else min(in_use, ours)
    counted = min(of_clients, taken)
    parts = [Part(_OF_CLIENTS, counted)]
    if in_use is not None:
        parts += [Part(_WITHOUT_CLIENT, taken - counted), Part(_UNUSED, ours - taken)]
    else:
        parts.append(Part(_HELD, ours - counted))
    others = _beside(device, used - sum(part.bytes for part in parts), ours)
    parts += [*others, Part(_FREE, free)]
    return tuple(part for part in parts if part.bytes or part.name == _FREE)


def _beside(device: int, unknown: int, ours: int) -> list[Part]:
    """Divide up what the device has in use beside a resource, as far as somebody tells."""
    parts: list[Part] = []

    def take(name: str, nbytes: int) -> None:
        nonlocal unknown
        taken = max(0, min(nbytes, unknown))
        parts.append(Part(name, taken))
        unknown -= taken

    take(_OTHER_PROCESSES, _bytes_of_other_processes(device) or 0)
    take(_OTHER_RESOURCES, get_budget(device).held - ours)
    for name, nbytes in bytes_of_libraries(device).items():
        take(name, nbytes)
    if (processes := bytes_of_processes(device)) is not None:
        take(_OF_THE_PROCESS, processes[0] - ours - sum(part.bytes for part in parts[1:]))
        return [*parts, Part(_REST_BESIDE_NVML, unknown)]
    return [*parts, Part(_REST, unknown)]


def _bytes_of_other_processes(device: int) -> int | None:
    processes = bytes_of_processes(device)
    return None if processes is None else processes[1]


def _holders_in(recording: Recording) -> tuple[Holder, ...]:
    clients, tags = (
        [Holder(kind, name, each.bytes, each.allocations) for name, each in recording.held_by(kind).items()]
        for kind in ("client", "tag")
    )
    return (*clients, *(tags if any(tag.name for tag in tags) else ()))


def _sites(device: int) -> list[Holder]:
    """Give what each line of the program holds now, as far as they are sampled."""
    return [
        Holder("site", "" if name == _NOT_SAMPLED else name, each.bytes, each.allocations)
        for name, each in holding_at_sites(device).items()
    ]


def _growing(recording: Recording) -> tuple[Growth, ...]:
    """Find who holds more after each quarter of the events than before, and at the end a tenth more of all in use."""
    events = len(recording.events)
    if events < 64:
        return ()
    quarters = [events // 4 - 1, events // 2 - 1, 3 * events // 4 - 1, events - 1]
    in_use = sum(int(curve[-1]) for curve in recording.bytes_over_time("client").values())
    found = []
    for kind in ("client", "tag"):
        for name, curve in recording.bytes_over_time(kind).items():
            held = curve[quarters]
            growth = int(held[-1] - held[0])
            if (np.diff(held) > 0).all() and growth > in_use / 10:
                found.append(Growth(kind, name, growth, int(held[-1])))
    named = [each for each in found if each.kind == "client" or each.name]
    return tuple(sorted(named, key=lambda each: (each.kind != "tag", -each.bytes)))
