"""``cenote advise``: what would have helped a run that failed, or which resource to take for one that did not."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from cenote.cli.capacity_measurement import Measurement, measure
from cenote.cli.device import choose_device
from cenote.cli.limited_resource import LimitedResource
from cenote.cli.recordings import read_recording
from cenote.cli.remedies import CANDIDATES, Advice, advice_for
from cenote.cli.simulated_machine import SimulatedMachine
from cenote.cli.situation import situation_of
from cenote.cli.terminal import Terminal, open_terminal
from cenote.logs.floor import page_floor
from cenote.recorder import Event, Recording
from cenote.units import format_bytes, parse_bytes

DEFAULT_RESOURCE = "pool"

_WORTH = 1.02
"""A resource is advised for less memory only if it saves so much."""

_FEWER_CALLS = 4
"""Of two that need about as much, the one is advised that asks the driver so many times less often."""


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, ``resource``, ``memory``, ``outside``, ``processes``, ``contexts``, ``budget`` and ``json``.
    terminal : Terminal
        Where to report; with ``json`` everything for people goes to standard error.

    Returns
    -------
    int
        The exit status.
    """
    if args.json:
        terminal = open_terminal(sys.stderr or io.StringIO())
    recording = read_recording(args.file)
    choose_device(0, simulate=True)
    resource = args.resource or DEFAULT_RESOURCE
    has_failed = (recording.events["event"] == Event.FAILURE).any()
    with SimulatedMachine() as machine:
        try:
            told = (_after_failure if has_failed else _before_failure)(args, recording, resource, machine, terminal)
        except ValueError as error:  # of its events
            raise ValueError(f"{args.file}: {error}") from error
    if args.json:
        print(json.dumps(told, indent=2))
    return 0


def _after_failure(
    args: argparse.Namespace, recording: Recording, resource: str, machine: SimulatedMachine, terminal: Terminal
) -> dict[str, Any]:
    if not recording.knows_the_beginning:
        terminal.line("No advice: the recording has wrapped past its beginning, and what was held then is not known.")
        return {"advice": [], "reproduced": False}
    memory = machine.device_bytes if args.memory is None else parse_bytes(args.memory)
    sizes = (args.outside, args.processes, args.contexts)
    outside, processes, contexts = (0 if size is None else parse_bytes(size) for size in sizes)
    budget = None if args.budget is None else parse_bytes(args.budget)
    of_others = 0 if args.budget_of_others is None else parse_bytes(args.budget_of_others)
    if budget is not None and of_others > budget:
        raise ValueError(f"others cannot hold {format_bytes(of_others)} of a budget of {format_bytes(budget)}")
    situation = situation_of(recording, resource, memory, outside, processes, contexts, budget, of_others)
    with terminal.progress(f"Replaying {args.file.name} with one change at a time", 1) as progress:
        found = advice_for(situation, machine)
        progress(1)
    terminal.line()
    for each in found:
        terminal.line(each.text, "bold" if each is found[0] else "")
    if not found:
        terminal.line(
            f"No advice: on '{resource}' with {format_bytes(memory - outside)} the recorded run passes. Is that the "
            "resource that it ran on (--resource), the device's memory (--memory), and what others hold (--outside)?"
        )
    return {"advice": [_as_json(each) for each in found], "reproduced": bool(found)}


def _as_json(advice: Advice) -> dict[str, Any]:
    return {
        "kind": advice.kind,
        "text": advice.text,
        "specification": advice.specification,
        "needed_bytes": advice.needed_bytes,
    }


@dataclass(frozen=True)
class _Choice:
    """What a run that did not fail should use, and why."""

    measured: Measurement
    text: str
    specification: str


def _before_failure(
    args: argparse.Namespace, recording: Recording, resource: str, machine: SimulatedMachine, terminal: Terminal
) -> dict[str, Any]:
    recorded = recording.to_trace()
    floor = page_floor(recorded)
    if floor.peak_bytes == 0:
        raise ValueError("nothing is allocated in it, so that any resource does")
    recorded["thread"] = 1
    names = [resource, *(each for each in CANDIDATES if _same(each) != _same(resource))]
    measured = [measure(LimitedResource(each, 0, machine), recorded, floor, terminal) for each in names]
    usable = [each for each in measured if each.capacity_bytes is not None]
    terminal.line()
    rows = [
        (
            each.resource,
            "none" if each.capacity_bytes is None else format_bytes(each.capacity_bytes),
            "" if each.capacity_bytes is None else f"{each.capacity_bytes / floor.peak_bytes:.4f}",
            "" if each.held_bytes is None else format_bytes(each.held_bytes),
            "" if each.driver_calls is None else f"{sum(each.driver_calls.values()):,}",
        )
        for each in measured
    ]
    columns = ("resource", " smallest memory", " of peak", " held without a limit", " driver calls")
    terminal.table(f"{args.file.name}: {format_bytes(floor.peak_bytes)} live at the most", columns, rows)
    choice = _choose(usable, resource)
    terminal.line(choice.text, "bold")
    return {
        "advice": [
            {
                "kind": "resource" if choice.measured.resource != resource else "none",
                "text": choice.text,
                "specification": choice.specification,
                "needed_bytes": choice.measured.capacity_bytes,
            }
        ],
        "peak_bytes": floor.peak_bytes,
        "floor_bytes": floor.nbytes,
    }


def _same(specification: str) -> str:
    return "pool | virtual" if specification.strip() == "pool" else specification.strip()


def _calls(each: Measurement) -> int:
    return sum((each.driver_calls or {}).values())


def _choose(usable: list[Measurement], resource: str) -> _Choice:
    """Take the one in force unless another needs clearly less memory, or as much and far fewer driver calls."""
    if not usable:
        raise ValueError("the run completes on none of the resources, however much memory they have")
    best = min(usable, key=lambda each: (_needed(each) * 100 // min(map(_needed, usable)), _calls(each)))
    own = next((each for each in usable if each.resource == resource), None)
    if own is None:
        return _Choice(best, f"Use '{best.resource}': '{resource}' does not complete it.", best.resource)
    if _needed(own) > _WORTH * _needed(best):
        saved = format_bytes(_needed(own) - _needed(best))
        text = f"Use '{best.resource}': it needs {saved} less than '{resource}', {format_bytes(_needed(best))} in all."
        return _Choice(best, text, best.resource)
    frugal = min((each for each in usable if _needed(each) <= _WORTH * _needed(own)), key=_calls)
    if _calls(own) > _FEWER_CALLS * max(_calls(frugal), 1):
        text = (
            f"Use '{frugal.resource}': it needs as much memory as '{resource}', and asks the driver {_calls(frugal):,} "
            f"times instead of {_calls(own):,}."
        )
        return _Choice(frugal, text, frugal.resource)
    others = int(np.count_nonzero([each is not own for each in usable]))
    text = (
        f"Stay with '{resource}': none of the {others} others would save more than {_WORTH - 1:.0%} of memory. It "
        f"needs {format_bytes(_needed(own))}."
    )
    return _Choice(own, text, resource)


def _needed(each: Measurement) -> int:
    return each.capacity_bytes or 0
