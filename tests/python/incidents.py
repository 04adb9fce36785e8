"""Incidents: a workload that runs out of memory for a reason that is known, so that advice can be tried on a fresh run.

``python incidents.py SEED`` makes the incident of a seed, has cenote explain it, and prints what came of it as JSON.
``python incidents.py SEED APPLIED`` runs the same workload afresh with the advice applied, and says whether it passes.

A workload is a recorded trace, or a history that leaves holes, played through clients of cenote. Each trace is played
from its beginning, as a program would do its work once more.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["CENOTE_CUDA_DRIVER"] = "sim"

import numpy as np

import cenote
from cenote import explanation, mr, registry, sim
from cenote._core.memory_resource import first_in_stack
from cenote.logs.trace import Action, bytes_in_use, read

TRACES = Path(__file__).parents[1] / "traces"
CAUSES = ("leak", "cache", "process", "holes", "limit", "need", "pin", "graph", "stream", "budget")
MIB = 1024**2
LONGEST = 12_000  # events of a trace that are played


@dataclass
class Incident:
    """What goes wrong.

    Attributes
    ----------
    events : list of (int, int, int)
        Action, block and bytes.
    specification : str
        The resource in force.
    device_bytes, outside_bytes : int
        The device, and what others hold of it.
    leak : tuple of (int, int, int)
        Bytes that are leaked, after how many events each, and the event from which on.
    pins : int
        Blocks of a page that are pinned and then freed, at the beginning, between others that stay.
    graphs : int
        Bytes that graphs have, from the beginning.
    captured : int
        Bytes that the work takes while it is captured into a graph on a stream of its own, at the end.
    budget : int
        What the process may hold in all; 0 for no bound.
    """

    cause: str
    events: list[tuple[int, int, int]]
    peak: int
    specification: str
    device_bytes: int
    outside_bytes: int = 0
    leak: tuple[int, int, int] | None = None
    pins: int = 0
    graphs: int = 0
    captured: int = 0
    budget: int = 0


def trace_of(choose: random.Random) -> tuple[list[tuple[int, int, int]], int]:
    recorded = read(choose.choice(sorted(TRACES.glob("*.csv.gz"))))
    recorded = recorded[recorded["action"] != Action.FAILURE][:LONGEST]
    scale = choose.choice((1, 1, 2, 3))
    events = [(int(e["action"]), int(e["pointer"]), int(e["bytes"]) * scale) for e in recorded]
    return events, int(bytes_in_use(recorded).max()) * scale


def holes_of(choose: random.Random) -> tuple[list[tuple[int, int, int]], int]:
    """Fill, free every other block, and ask for blocks larger than any hole."""
    block, count = choose.randrange(3, 9) * MIB, choose.randrange(80, 200)
    events = [(Action.ALLOCATE, i, block) for i in range(count)]
    events += [(Action.FREE, i, block) for i in range(0, count, 2)]
    large = block * choose.randrange(4, 8)
    whole_pages = block // (2 * MIB) * 2 * MIB  # in a hole, which is what pages can be brought together from
    asked = max(1, count // 2 * whole_pages * 8 // 10 // large)
    events += [(Action.ALLOCATE, count + i, large) for i in range(asked)]
    events += [(Action.FREE, count + i, large) for i in range(asked)]
    events += [(Action.FREE, i, block) for i in range(1, count, 2)]
    return [(int(a), b, n) for a, b, n in events], count * block


def large_blocks_of(choose: random.Random) -> tuple[list[tuple[int, int, int]], int]:
    """Blocks of many pages, several times over."""
    block, count = choose.randrange(5, 12) * 2 * MIB, choose.randrange(40, 90)
    events = []
    for turn in range(3):
        events += [(Action.ALLOCATE, turn * count + i, block) for i in range(count)]
        events += [(Action.FREE, turn * count + i, block) for i in range(count)]
    return [(int(a), b, n) for a, b, n in events], count * block


def incident_of(seed: int) -> Incident:
    choose = random.Random(seed)
    cause = CAUSES[seed % len(CAUSES)]
    events, peak = {"holes": holes_of, "pin": large_blocks_of}.get(cause, trace_of)(choose)
    page = 2 * MIB
    room = (int(peak * choose.uniform(1.1, 1.4)) // page + 64) * page
    short = max(page, int(peak * choose.uniform(0.86, 0.96)) // page * page)
    if cause == "leak":
        every = choose.randrange(8, 24)
        begin = choose.choice((0, 0, len(events) * 2 // 5))
        times = (len(events) - begin) // every
        leaked = max(512, int((room - 0.5 * peak) * choose.uniform(1.2, 2.0)) // times)
        return Incident(cause, events, peak, f"pool:max={room // MIB}MiB", 64 << 30, leak=(leaked, every, begin))
    if cause in ("cache", "process"):
        device = room + 64 * MIB
        return Incident(cause, events, peak, "pool", device, outside_bytes=device - short)
    if cause == "holes":
        limit = (int(peak * 1.01) // page + 8) * page
        return Incident(cause, events, peak, f"pool:initial={limit // MIB}MiB,max={limit // MIB}MiB | cuda", 64 << 30)
    if cause == "pin":
        pins = int(peak * choose.uniform(0.2, 0.35)) // page
        limit = (int(peak * 1.1) // page + 8 + pins) * page
        return Incident(cause, events, peak, f"pool:max={limit // MIB}MiB", 64 << 30, pins=pins)
    if cause == "graph":
        graphs = (room - int(peak * choose.uniform(0.75, 0.95))) // page * page
        return Incident(cause, events, peak, f"pool:max={room // MIB}MiB", 64 << 30, graphs=graphs)
    if cause == "stream":
        live = {block: nbytes for action, block, nbytes in events if action == Action.ALLOCATE}
        for action, block, _ in events:
            if action == Action.FREE:
                live.pop(block, None)
        events += [(int(Action.FREE), block, nbytes) for block, nbytes in live.items()]
        captured = min(room - peak + int(peak * choose.uniform(0.3, 0.7)), int(room * 0.9)) // page * page
        return Incident(cause, events, peak, f"pool:max={room // MIB}MiB", 64 << 30, captured=captured)
    if cause == "budget":
        return Incident(cause, events, peak, "pool", 64 << 30, budget=short)
    if cause == "limit":
        return Incident(cause, events, peak, f"statistics | pool:max={short // MIB}MiB", 64 << 30)
    return Incident(cause, events, peak, "pool", short)


def make_holes(count: int, is_pinned: bool) -> None:
    """Pin every other one of many blocks of a page, as one exports them, and free those."""
    pool = first_in_stack(mr.get_current_device_resource(), mr.PoolMemoryResource)
    client = registry.Client("library")
    blocks = [client.allocate(2 * MIB) for _ in range(2 * count)]
    for address in blocks[::2]:
        if pool is not None and is_pinned:
            pool.pin(address)
    for address in blocks[::2]:
        client.deallocate(address)


def capture_graphs(parts: list[int]) -> None:
    """Capture work that uses so much memory, and frees it within, into a graph each, which stays."""
    driver = ctypes.CDLL(os.fspath(Path(cenote.__file__).parent / "lib" / "libcenote_sim.so"))
    client, stream = registry.Client("torch"), cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    for part in parts:
        assert driver.cuStreamBeginCapture_v2(ctypes.c_void_p(stream.handle), 2) == 0
        with cenote.tag("the work"):
            for _ in range(2):
                pieces = [client.allocate(size, stream) for size in (part // 4, part - part // 4)]
                for piece in pieces:
                    client.deallocate(piece, stream)
        graph = ctypes.c_void_p()
        assert driver.cuStreamEndCapture(ctypes.c_void_p(stream.handle), ctypes.byref(graph)) == 0


def play(incident: Incident, specification: str, device_bytes: int, outside_bytes: int, without: str = "") -> None:
    """Run the workload, without one cause of its trouble; MemoryError where it runs out."""
    os.environ["CENOTE_SIM"] = f"memory={device_bytes}B"
    sim.reset()
    others = mr.CudaMemoryResource()
    if outside_bytes:
        others.allocate(outside_bytes // 512 * 512)
    cenote.budget(incident.budget or None)
    mr.set_current_device_resource(mr.from_spec(specification))
    if incident.pins:
        make_holes(incident.pins, is_pinned=without != "pin")
    if incident.graphs and without != "graph":
        capture_graphs([incident.graphs // 2, incident.graphs - incident.graphs // 2])
    work, library = registry.Client("torch"), registry.Client("library")
    live: dict[int, int] = {}
    lost = []
    for at, (action, block, nbytes) in enumerate(incident.events):
        if incident.leak is not None and without != "leak":
            nbytes_leaked, every, begin = incident.leak
            if at >= begin and at % every == 0:
                with cenote.tag("leaky cache"):
                    lost.append(library.allocate(nbytes_leaked))
        if action == Action.ALLOCATE:
            with cenote.tag("the work"):
                live[block] = work.allocate(nbytes)
        elif block in live:
            work.deallocate(live.pop(block))
    if incident.captured:
        if without == "stream":
            mr.get_current_device_resource().trim(0, True)
        capture_graphs([incident.captured])


def explain(incident: Incident) -> dict[str, Any]:
    if incident.cause == "process":  # what NVML would say
        explanation._bytes_of_other_processes = lambda device: incident.outside_bytes
    try:
        play(incident, incident.specification, incident.device_bytes, incident.outside_bytes)
    except cenote.OutOfMemoryError as error:
        told = cenote.explain(error, advice=True)
        return {
            "cause": incident.cause,
            "advice": [vars(each) for each in told.advice],
            "holder": next((each.name for each in told.holders if each.kind == "client"), None),
            "tags": {each.name: each.bytes for each in told.holders if each.kind == "tag"},
            "why": told.why,
        }
    return {"cause": incident.cause, "advice": None}


def apply(incident: Incident, advice: dict[str, Any]) -> bool:
    device, outside = incident.device_bytes, incident.outside_bytes
    if advice["kind"] in ("process", "cache"):
        outside = 0
    elif advice["kind"] == "memory":
        device = int(advice["needed_bytes"] * 1.25) + outside
    elif incident.budget:
        incident.budget = int(advice["needed_bytes"] * 1.25)
    try:
        play(incident, advice["specification"], device, outside, advice["kind"])
    except MemoryError:
        return False
    return True


if __name__ == "__main__":
    np.seterr(all="raise")
    made = incident_of(int(sys.argv[1]))
    result: Any = explain(made) if len(sys.argv) == 2 else {"passes": apply(made, json.loads(sys.argv[2]))}
    print(json.dumps(result), flush=True)
    os._exit(0)
