"""One run of the suite: which cells there are, the workers that measure them, and what they answered."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.build import BuildError, build
from tests.bench.cases import Case, Row
from tests.bench.cores import Cores
from tests.bench.peers import PEERS
from tests.bench.schedule import interleaved
from tests.bench.spread import Spread
from tests.bench.worker import Worker, WorkerError

START_TIMEOUT_SECONDS = 180
RUN_TIMEOUT_SECONDS = 180
NEEDS_GPU = "needs a GPU"
QUICK = 4
"""`--quick` does this part of everything."""


@dataclass
class Cell:
    """One peer in one row of one case."""

    case: Case
    row: Row
    peer: str
    values: list[float | None] = field(default_factory=list)
    """A value for each round, None where it was not asked."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: str = ""
    seconds: float = 0.0
    """Of wall-clock time that it took in all."""

    @property
    def measured(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def spread(self) -> Spread | None:
        return Spread.of(self.measured) if self.measured else None


@dataclass(frozen=True)
class Options:
    """How a run is made."""

    rounds: int
    quick: bool
    simulated: bool
    patience_seconds: float
    """A cell that took longer in all is not measured again."""
    minutes: float
    build_folder: Path
    environment: Mapping[str, str]


class Progress:
    """What the session tells while it works; this one tells nothing."""

    def say(self, text: str) -> None:
        """Tell what is being done besides measuring."""

    def begin(self, title: str, total: int) -> None:
        """Begin a section of so many steps."""

    def step(self, text: str) -> None:
        """One step is about to be made."""


class Session:
    """Measures cells.

    Parameters
    ----------
    cases : sequence of Case
        What is measured.
    peers : collection of str
        Of whom.
    options : Options
    progress : Progress
    """

    def __init__(self, cases: Sequence[Case], peers: Iterable[str], options: Options, progress: Progress) -> None:
        wanted = set(peers)
        self.cells = [
            Cell(case, row, peer)
            for case in cases
            for row in case.rows
            if row.quick or not options.quick
            for peer in case.peers
            if peer in wanted
        ]
        self.versions: dict[str, str] = {}
        self.rounds: dict[str, int] = {}
        self.notes: list[str] = []
        self._options = options
        self._progress = progress
        self._cores = Cores()
        self._began = time.monotonic()

    def run(self) -> None:
        """Measure everything, section by section; those in Python first, as they take the same time everywhere."""
        sections = dict.fromkeys(cell.case.section for cell in self.cells)
        for section in sorted(sections, key=lambda name: name == "cpp"):
            self._run_section(section, [cell for cell in self.cells if cell.case.section == section])

    def _run_section(self, section: str, cells: list[Cell]) -> None:
        for cell in cells:
            if self._options.simulated and (cell.case.needs_gpu or PEERS[cell.peer].needs_gpu):
                cell.missing = NEEDS_GPU
        cells = [cell for cell in cells if not cell.missing]
        workers = _Workers(self._options, self._progress, self.notes, self.versions)
        try:
            workers.start(cells)
            cells = [cell for cell in cells if not cell.missing]
            groups: dict[tuple[str, str], list[Cell]] = {}
            for cell in cells:
                groups.setdefault((cell.case.name, cell.row.label), []).append(cell)
            self._measure(section, list(groups.values()), workers)
        finally:
            workers.quit()

    def _measure(self, section: str, groups: list[list[Cell]], workers: _Workers) -> None:
        cells = [cell for group in groups for cell in group]
        if not cells:
            return
        self._progress.begin(section, self._options.rounds * len(cells))
        current, round_began = -1, time.monotonic()
        for done, cell in interleaved(groups, self._options.rounds):
            if done != current:
                now = time.monotonic()
                if done and now - self._began + (now - round_began) > 60 * self._options.minutes:
                    self.notes.append(
                        f"section {section}: {done} rounds, as another would have passed {self._options.minutes:g} "
                        "minutes"
                    )
                    break
                current, round_began = done, now
                self.rounds[section] = done + 1
                for each in cells:
                    each.values.append(None)
            self._progress.step(f"{cell.case.name} · {cell.row.label} · {cell.peer}")
            if not cell.missing and not (cell.measured and cell.seconds > self._options.patience_seconds):
                threads = int(cell.row.parameters.get("threads", 1))
                workers.of(cell).keep_to(self._cores.of((done, cell.case.name, cell.row.label), threads))
                self._measure_cell(cell, workers)

    def _measure_cell(self, cell: Cell, workers: _Workers) -> None:
        began = time.monotonic()
        request = {"do": "run", "case": cell.case.name, "peer": cell.peer, **self._parameters(cell)}
        try:
            answer = workers.of(cell).ask(request, RUN_TIMEOUT_SECONDS)
        except WorkerError as error:
            cell.missing = str(error)
            workers.restart(cell)
            return
        finally:
            cell.seconds += time.monotonic() - began
        if "error" in answer:
            cell.missing = answer["error"]
            return
        cell.values[-1] = answer["value"]
        for name, value in answer["figures"].items():
            if value is not None:
                cell.figures.setdefault(name, []).append(value)

    def _parameters(self, cell: Cell) -> dict[str, int | str]:
        parameters = {**cell.case.effort, **cell.row.parameters}
        if self._options.quick:
            for name in ("count", "budget_ms", "preparation_ms", "mib"):
                if isinstance(value := parameters.get(name), int):
                    parameters[name] = max(1, value // QUICK)
        return parameters


class _Workers:
    """The processes of one section: two for all cases in C++, one a cell in Python."""

    def __init__(self, options: Options, progress: Progress, notes: list[str], versions: dict[str, str]) -> None:
        self._options = options
        self._progress = progress
        self._notes = notes
        self._versions = versions
        self._commands: dict[str, list[str]] = {}
        self._running: dict[str, Worker] = {}

    @staticmethod
    def name_of(cell: Cell) -> str:
        if cell.case.worker == "python":
            return f"{cell.case.name} {cell.peer}"
        return "bench_rmm_worker" if cell.peer.startswith("rmm-") else "bench_worker"

    def of(self, cell: Cell) -> Worker:
        return self._running[self.name_of(cell)]

    def start(self, cells: Sequence[Cell]) -> None:
        """Start what the cells need, and note which cells cannot be had and why."""
        by_name: dict[str, list[Cell]] = {}
        for cell in cells:
            by_name.setdefault(self.name_of(cell), []).append(cell)
        for name, its_cells in by_name.items():
            try:
                self._commands[name] = self._command(name, its_cells[0])
                self._running[name] = self._start(name)
            except (BuildError, OSError) as error:
                self._give_up(its_cells, str(error))
        for worker in self._running.values():
            worker.send({"do": "hello"})
        for name, worker in self._running.items():
            try:
                hello = worker.receive(START_TIMEOUT_SECONDS)
            except WorkerError as error:
                self._give_up(by_name[name], str(error))
                continue
            if "error" in hello:
                self._give_up(by_name[name], hello["error"])
                continue
            for cell in by_name[name]:
                peers = hello["cases"].get(cell.case.name, "").split()
                if cell.peer in hello["missing"]:
                    cell.missing = hello["missing"][cell.peer]
                elif cell.peer not in peers:
                    cell.missing = "has no such case"
            measured = {cell.peer for cell in by_name[name]}
            for peer, version in hello["peers"].items():
                if peer not in measured:
                    continue
                known = self._versions.get(peer, "")
                self._versions[peer] = ", ".join(
                    dict.fromkeys(filter(None, [*known.split(", "), *version.split(", ")]))
                )

    def restart(self, cell: Cell) -> None:
        """Put a new process in the place of one that ended."""
        name = self.name_of(cell)
        self._running[name].quit()
        self._running[name] = self._start(name)

    def quit(self) -> None:
        for worker in self._running.values():
            worker.quit()

    def _start(self, name: str) -> Worker:
        return Worker(name, self._commands[name], self._options.environment)

    def _command(self, name: str, cell: Cell) -> list[str]:
        if cell.case.worker == "python":
            return [sys.executable, "-m", "tests.bench.python_worker", cell.case.name, cell.peer]
        return [str(build(self._options.build_folder, name, self._progress.say))]

    def _give_up(self, cells: Sequence[Cell], why: str) -> None:
        for cell in cells:
            cell.missing = why


def select(cells: Sequence[Cell], where: Callable[[Cell], bool]) -> Cell | None:
    """The first measured cell for which `where` holds."""
    return next((cell for cell in cells if cell.measured and where(cell)), None)
