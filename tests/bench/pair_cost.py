"""What one allocation and its free cost on the host, for each resource of cenote: median and spread over rounds.

::

    python tests/bench/pair_cost.py --out DIR [--rounds N]        writes DIR/pair-cost.md and DIR/pair-cost.json

A pair is `allocate` and `deallocate` of one size on a stream of its own, from Python. Each round measures every case
once, in another order, so that what else the machine does falls on all of them. The cost of an empty Python call is
measured in the same way, as a measure of the machine. Where a resource cannot be had, the table says why.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cenote
from cenote import driver, mr

KIB, MIB = 1024, 1024**2
SIZES = (4 * KIB, 1 * MIB)
ROUNDS = 30
WARM_UP = 20
SEED = 20261123

Make = Callable[[Path], mr.DeviceMemoryResource]


def pool(_: Path) -> mr.DeviceMemoryResource:
    """The pool that is measured alone and under each adaptor."""
    return mr.PoolMemoryResource(mr.CudaMemoryResource(), "1GiB")


# What is measured: its specification, pairs a round, and how it is made. Few pairs where one is slow.
CASES: dict[str, tuple[int, Make]] = {
    "cuda": (100, lambda _: mr.CudaMemoryResource()),
    "managed": (30, lambda _: mr.ManagedMemoryResource()),
    "pinned": (30, lambda _: mr.PinnedHostMemoryResource()),
    "async": (2000, lambda _: mr.CudaAsyncMemoryResource(initial_pool_size="64MiB")),
    "async_managed": (300, lambda _: mr.CudaAsyncManagedMemoryResource()),
    "pool | cuda": (5000, pool),
    "pool | managed": (5000, lambda _: mr.PoolMemoryResource(mr.ManagedMemoryResource(), "64MiB")),
    "pool | pinned": (5000, lambda _: mr.PoolMemoryResource(mr.PinnedHostMemoryResource(), "64MiB")),
    "arena | cuda": (5000, lambda _: mr.ArenaMemoryResource(mr.CudaMemoryResource(), "1GiB")),
    "fixed_size | cuda": (5000, lambda _: mr.FixedSizeMemoryResource(mr.CudaMemoryResource(), "1MiB", 16)),
    "binning | pool | cuda": (5000, lambda folder: mr.BinningMemoryResource(pool(folder), 12, 20)),
    "statistics | pool | cuda": (5000, lambda folder: mr.StatisticsResourceAdaptor(pool(folder))),
    "limiting | pool | cuda": (5000, lambda folder: mr.LimitingResourceAdaptor(pool(folder), "1GiB")),
    "tracking | pool | cuda": (5000, lambda folder: mr.TrackingResourceAdaptor(pool(folder))),
    "tracking with stacks | pool | cuda": (
        500,
        lambda folder: mr.TrackingResourceAdaptor(pool(folder), capture_stacks=True),
    ),
    "logging | pool | cuda": (2000, lambda folder: mr.LoggingResourceAdaptor(pool(folder), folder / "log.csv")),
}


@dataclass
class Cost:
    """What was measured of one resource and one size."""

    resource: str
    nbytes: int
    pairs_per_round: int
    nanoseconds: list[float] = field(default_factory=list)
    """Of one pair, a value for each round."""
    missing: str = ""

    def cells(self) -> list[str]:
        """Median, quartiles and extremes, as they are printed."""
        if self.missing:
            return ["—"] * 5
        lower, median, upper = statistics.quantiles(self.nanoseconds, n=4)
        return [f"{value:,.0f}" for value in (median, lower, upper, min(self.nanoseconds), max(self.nanoseconds))]


def measure_pairs(resource: mr.DeviceMemoryResource, nbytes: int, stream: cenote.Stream, pairs: int) -> float:
    """Allocate and free `pairs` times; nanoseconds a pair."""
    allocate, deallocate = resource.allocate, resource.deallocate
    begin = time.perf_counter_ns()
    for _ in range(pairs):
        deallocate(allocate(nbytes, stream), nbytes, stream)
    taken = time.perf_counter_ns() - begin
    stream.synchronize()
    return taken / pairs


def measure_empty_calls(calls: int = 20_000) -> float:
    """Call a function that does nothing; nanoseconds a call."""

    def nothing() -> None: ...

    begin = time.perf_counter_ns()
    for _ in range(calls):
        nothing()
    return (time.perf_counter_ns() - begin) / calls


def show(done: int, rounds: int) -> None:
    """Progress, on one line of a terminal."""
    end = "\n" if done == rounds or not sys.stderr.isatty() else "\r"
    print(f"round {done} of {rounds}", end=end, file=sys.stderr, flush=True)


def measure(rounds: int, share: float, folder: Path) -> tuple[list[Cost], list[float]]:
    """Measure every case in each round; the costs, and those of an empty call."""
    resources: dict[str, mr.DeviceMemoryResource] = {}
    missing: dict[str, str] = {}
    for name, (_, make) in CASES.items():
        try:
            resources[name] = make(folder)
        except (RuntimeError, MemoryError) as error:
            missing[name] = str(error).splitlines()[0]
    pairs = {name: max(2, int(share * count)) for name, (count, _) in CASES.items()}
    costs = [Cost(name, size, pairs[name], missing=missing.get(name, "")) for name in CASES for size in SIZES]
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    there = [cost for cost in costs if not cost.missing]
    for cost in there:
        measure_pairs(resources[cost.resource], cost.nbytes, stream, min(WARM_UP, cost.pairs_per_round))
    order, empty = random.Random(SEED), []
    for done in range(1, rounds + 1):
        empty.append(measure_empty_calls())
        for cost in order.sample(there, len(there)):
            resource = resources[cost.resource]
            cost.nanoseconds.append(measure_pairs(resource, cost.nbytes, stream, cost.pairs_per_round))
        show(done, rounds)
    return costs, empty


def describe_machine() -> dict[str, str]:
    """Where and with what this was measured."""
    version = driver.version()
    try:
        kernel_module = Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        kernel_module = "unknown"
    return {
        "date": datetime.date.today().isoformat(),
        "device": driver.device_name(0),
        "driver": kernel_module,
        "CUDA of the driver": f"{version // 1000}.{version % 1000 // 10}",
        "cores": str(os.cpu_count()),
        "cenote": cenote.__version__,
        "Python": platform.python_version(),
    }


def as_markdown(costs: list[Cost], empty: list[float], machine: dict[str, str], rounds: int) -> str:
    """The page ``pair-cost.md``."""
    simulated = (
        "**On the simulated device: these figures say nothing about a GPU.**\n\n" if driver.is_simulated() else ""
    )
    lines = [
        "# What an allocation and its free cost\n",
        f"{simulated}Written by `python tests/bench/pair_cost.py --rounds {rounds}` on {machine['date']}: "
        f"{machine['device']}, driver {machine['driver']} (CUDA {machine['CUDA of the driver']}), "
        f"{machine['cores']} cores, Python {machine['Python']}, cenote {machine['cenote']}.\n",
        "Nanoseconds on the host for `allocate` and `deallocate` together, called from Python by one thread on one "
        "non-blocking stream, with nothing else in use. Each round measures every row once, in another order.\n",
        "| resource | bytes | median | 25 % | 75 % | least | most | pairs a round |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        cells = [
            f"`{cost.resource}`".replace("|", "\\|"),
            f"{cost.nbytes:,}",
            *cost.cells(),
            f"{cost.pairs_per_round:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"\nAn empty Python call took {statistics.median(empty):,.0f} ns (median of the same rounds).\n")
    absent = {cost.resource: cost.missing for cost in costs if cost.missing}
    lines += [f"* `{resource}` could not be had: {why}" for resource, why in absent.items()]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure, print the table, and write it as Markdown and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for pair-cost.md and pair-cost.json")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many rounds (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the pairs of each round; less is quicker")
    arguments = parser.parse_args()
    rounds = max(2, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        costs, empty = measure(rounds, arguments.share, Path(folder))
    machine = describe_machine()
    page = as_markdown(costs, empty, machine, rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "pair-cost.md").write_text(page)
    record = {"machine": machine, "rounds": rounds, "empty_call_ns": empty, "costs": [asdict(cost) for cost in costs]}
    (arguments.out / "pair-cost.json").write_text(json.dumps(record, indent=1) + "\n")
    print(page)


if __name__ == "__main__":
    main()
