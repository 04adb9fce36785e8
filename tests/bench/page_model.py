"""Compares designs of a pool over virtual memory: replays traces through a small model of it (cpp/page_model.cpp).

::

    python -m tests.bench.page_model TRACE.csv.gz ... [--synthetic] [--jitter N] [--table NAME ...] [--json FILE]
    python -m tests.bench.page_model TRACE.csv.gz --design "bound=1.03 fit=best"

A cell of a table has the smallest limit that completes and the most that is held without a limit, both over the peak of
live bytes; how many pages were moved without a limit, and with one that is 1 % above the smallest; and the waits for
other streams (w), without a limit. A `!` says that 1 or 2 % more than the smallest limit did not complete. A column is
a trace, or several: the geometric means, and the sums. The keys of a design are the fields of `struct design` in the
model. Needs a C++20 compiler, numpy and rich.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.bench import synthetic_traces

SOURCE = Path(__file__).with_name("cpp") / "page_model.cpp"
MOVE_SECONDS = 60e-6  # of host time, H200, driver 580: map and access at the new address, unmap at the old one
PRECISION = 0.0005  # of the smallest limit, over the peak

Rows = npt.NDArray[np.int64]
"""Events as the model reads them: id, bytes (-1 for a free) and stream; shape ``(events, 3)``."""

NO_SLACK = "slack=0"
TABLES: dict[str, tuple[str, ...]] = {
    "goals": ("", "bound=1.03", f"bound=1.03 {NO_SLACK}", "ready_after=8", "ready_after=-1", "cache=1"),
    "floor": ("fit=none candidates=1 page=2097152 bound=1 slack=0 touch=0",),
    "fit": ("", "fit=best", "fit=good", "fit=good upper=0", "upper=0", "fit=none", "fit=none candidates=1 touch=0"),
    "pages": ("", *(f"page={size << 20}" for size in (2, 4, 8, 16, 32, 64))),
    "bounds": (*(f"bound={bound} {NO_SLACK}" for bound in (1.0, 1.03, 1.1, 1.2)), "bound=0"),
    "victims": tuple(f"{NO_SLACK} victim={victim}" for victim in ("oldest", "smallest", "largest", "highest")),
    "limit": ("", "touch=0", "touch=1000000", "near=0.8", "near=2", *(f"candidates={n}" for n in (1, 2, 32, 400))),
    "caches": ("", "cache=1", "cache=1 cache_near=9"),
    "streams": tuple(
        f"{design} ready_after={after}"
        for after in (0, 8, -1)
        for design in ("", "coalesce=0", "wait_first=0", "one_range=0")
    ),
}


@dataclass(frozen=True)
class Workload:
    """A trace as the model reads it."""

    name: str
    group: str
    rows: Rows
    seconds: float | None = None

    @property
    def peak(self) -> int:
        """The most live bytes, as requested."""
        ids, sizes = self.rows[:, 0], self.rows[:, 1]
        size_of = np.zeros(ids.max(initial=0) + 1, dtype=np.int64)
        size_of[ids[sizes >= 0]] = sizes[sizes >= 0]
        return int(np.cumsum(np.where(sizes >= 0, sizes, -size_of[ids])).max(initial=0))

    def jittered(self, seed: int, amount: float = 0.03) -> Workload:
        """The same with each size above 4 KiB made a little larger or smaller: equal sizes stay equal."""
        rows = self.rows.copy()
        allocates = rows[:, 1] >= 0
        sizes, index = np.unique(rows[allocates, 1], return_inverse=True)
        factors = 1 + np.random.default_rng(seed).uniform(-amount, amount, len(sizes)) * (sizes > 4096)
        rows[allocates, 1] = np.maximum(1, sizes * factors)[index].astype(np.int64)
        return Workload(f"{self.name} ±{seed}", self.group, rows, self.seconds)


def read(path: Path) -> Workload:
    """Read a trace with cenote's reader, or as plain CSV if cenote is not installed."""
    try:
        from cenote.logs import trace
    except ImportError:
        events = list(_plain_events(path))
    else:
        read_events = trace.read(path)
        actions = {int(action): action.name.lower() for action in trace.Action}
        events = [
            (int(e["time_us"]), actions[int(e["action"])], int(e["pointer"]), int(e["bytes"]), int(e["stream"]))
            for e in read_events
        ]
    name = path.name.split(".")[0]
    return Workload(name, name, rows_of(events), (events[-1][0] - events[0][0]) / 1e6)


def _plain_events(path: Path) -> Iterator[tuple[int, str, int, int, int]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            hours, minutes, seconds, micros = map(int, row["Time"].replace(".", ":").split(":"))
            time_us = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros
            pointer = 0 if row["Pointer"] == "(nil)" else int(row["Pointer"], 0)
            yield time_us, row["Action"], pointer, int(row["Size"]), int(row["Stream"], 0)


def rows_of(events: Sequence[tuple[int, str, int, int, int]]) -> Rows:
    """Number allocations and streams; leave out what has no bytes, failed, or was allocated before the recording."""
    ids: dict[int, int] = {}
    streams: dict[int, int] = {}
    rows = []
    count = 0
    for _, action, pointer, size, stream in events:
        number = streams.setdefault(stream, len(streams))
        if action == "allocate" and size > 0:
            ids[pointer] = count
            rows.append((count, size, number))
            count += 1
        elif action == "free" and pointer in ids:
            rows.append((ids.pop(pointer), -1, number))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def build(folder: Path) -> Path:
    """Compile the model into `folder`; RuntimeError with the compiler's words if that fails."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    program = folder / "page_model"
    command = [*shlex.split(compiler), "-std=c++20", "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
    return program


class Model:
    """A running model of one workload: each design is replayed when it is asked for."""

    def __init__(self, process: subprocess.Popen[str], workload: Workload) -> None:
        self._process = process
        self.workload = workload

    @classmethod
    @contextmanager
    def of(cls, program: Path, workload: Workload) -> Iterator[Model]:
        """Start the model, and end it afterwards."""
        with tempfile.NamedTemporaryFile(suffix=".trace") as file:
            file.write(np.ascontiguousarray(workload.rows).tobytes())
            file.flush()
            pipe = subprocess.PIPE
            with subprocess.Popen([program, file.name], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
                yield cls(process, workload)

    def replay(self, design: str) -> dict[str, Any]:
        """Give the figures of a design; ValueError with the model's words for what is none."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{design}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise ValueError(process.stderr.read().strip())
        return dict(json.loads(answer))

    def capacity(self, design: str) -> int:
        """Find the smallest limit in bytes with which a design completes, by bisection."""
        peak = self.workload.peak
        low, step = peak - 1, max(peak // 64, 1)
        while not self.replay(f"{design} limit={low + step}")["completed"]:
            low, step = low + step, 2 * step
        high = low + step
        while high - low > max(PRECISION * peak, 1):
            middle = (low + high) // 2
            if self.replay(f"{design} limit={middle}")["completed"]:
                high = middle
            else:
                low = middle
        return high

    def measure(self, design: str) -> dict[str, Any]:
        """Give the figures of a design without a limit, and its capacity; all ratios are over the peak."""
        figures = self.replay(design)
        capacity = self.capacity(design)
        more = [self.replay(f"{design} limit={capacity * percent // 100}") for percent in (101, 102)]
        seconds = self.workload.seconds
        return {
            "workload": self.workload.name,
            "design": design,
            "peak_bytes": self.workload.peak,
            "capacity_ratio": capacity / self.workload.peak,
            "completes_above": all(m["completed"] for m in more),
            "moves_at_limit": more[0]["moves"] + more[0]["recuts"],
            "held_ratio": figures["held"] / self.workload.peak,
            "moves_share": None if seconds is None else figures["moves"] * MOVE_SECONDS / seconds,
            **figures,
        }


def geometric_mean(values: Sequence[float]) -> float:
    """Give the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def cell(results: Sequence[dict[str, Any]]) -> str:
    """Put the results of a group of workloads into few figures."""
    capacity = geometric_mean([r["capacity_ratio"] for r in results])
    held = geometric_mean([r["held_ratio"] for r in results])
    waits = sum(r["waits"] for r in results)
    mark = "" if all(r["completes_above"] for r in results) else "!"
    at_limit = sum(r["moves_at_limit"] for r in results)
    moves = f"{sum(r['moves'] for r in results)}/{at_limit}"
    return f"{capacity:.4f}{mark} {held:.3f} {moves}" + (f" w{waits}" if waits else "")


def main() -> None:
    """Read the traces, run the designs, print the tables."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--synthetic", action="store_true", help="synthetic workloads, too")
    parser.add_argument("--jitter", type=int, default=0, metavar="N", help="N variants of each trace, sizes ±3 %%")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=["goals"], metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--design", action="append", metavar="'KEY=VALUE ...'", help="these instead of a table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    workloads = [read(path) for path in arguments.traces]
    workloads += [w.jittered(seed) for w in list(workloads) for seed in range(1, arguments.jitter + 1)]
    if arguments.synthetic:
        workloads += [Workload(name, group, rows) for name, group, rows in synthetic_traces.all_of_them()]
    if not workloads:
        parser.error("no trace, and not --synthetic")
    tables = {"designs": tuple(arguments.design)} if arguments.design else {t: TABLES[t] for t in arguments.table}
    groups = list(dict.fromkeys(w.group for w in workloads))
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    designs = list(dict.fromkeys(design for table in tables.values() for design in table))
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for workload in workloads:
            with Model.of(program, workload) as model:
                for design in designs:
                    results.setdefault((design, workload.group), []).append(model.measure(design))
    for name, rows in tables.items():
        table = Table(title=f"{name}: capacity, held, moves/at the limit, waits", title_justify="left")
        for title in ("design", *groups):
            table.add_column(title)
        for design in rows:
            table.add_row(design or "default", *(cell(results[design, group]) for group in groups))
        Console(width=None if sys.stdout.isatty() else 40 + 26 * len(groups)).print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([r for of_cell in results.values() for r in of_cell], indent=1) + "\n")


if __name__ == "__main__":
    main()
