"""Measures cenote's resources and every peer that is installed, interleaved in one run.

It writes DIR/bench.md (the page), DIR/bench.json (everything that was measured) and a PNG of each case. Peers that are
missing, and what needs a GPU where there is none, are named at the end of the page with the reason.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.cases import CASES, REPLAY, Case, Row
from tests.bench.peers import PEERS, choose

TRACES = Path(__file__).parents[1] / "traces"
ROUNDS = 7
QUICK_ROUNDS = 3
QUICK_SHARE = 0.05

EXAMPLES = """
examples:
  python -m tests.bench --peers all --out results                     everything, as often as 8 minutes hold
  python -m tests.bench --quick --out /tmp/bench                      a look at it, in about a minute
  python -m tests.bench --cases pair,threads --peers cenote-pool,mimalloc --rounds 20 --out /tmp/bench
  python -m tests.bench --cases replay --out results                  every allocator over the recorded traces
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder for the page, the figures and the plots (made if need be)")
    parser.add_argument("--peers", default="all", help="names with commas, or 'all' (default); --list has them")
    parser.add_argument("--cases", default="all", help="names with commas, or 'all' (default); --list has them")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}; {QUICK_ROUNDS} with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer rows, a quarter of the operations")
    parser.add_argument("--minutes", type=float, default=8, help="begin no round that would end later (default: 8)")
    parser.add_argument(
        "--patience", type=float, default=5, metavar="S", help="measure a cell no more once it took S seconds (5)"
    )
    parser.add_argument(
        "--traces",
        type=Path,
        metavar="DIR",
        help="replay recorded traces (*.csv, *.csv.gz) of a folder as well; tests/traces where --cases names replay",
    )
    parser.add_argument("--trace-share", type=float, metavar="X", help="only the first part of each trace: 0 < X <= 1")
    parser.add_argument("--simulate", action="store_true", help="use the simulated device although there is a GPU")
    parser.add_argument("--mimalloc", type=Path, metavar="FILE", help="libmimalloc.so, where it is not installed")
    parser.add_argument(
        "--build", type=Path, metavar="DIR", help="where the workers in C++ are built (default: build/bench)"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and the peers, and do nothing")
    chosen = parser.parse_args(arguments)
    if chosen.out is None and not chosen.list:
        parser.error("--out DIR is needed")
    if chosen.traces is None and REPLAY.name in chosen.cases.split(","):
        chosen.traces = TRACES
    if chosen.traces is not None and not chosen.traces.is_dir():
        parser.error(f"--traces: {chosen.traces} is no folder")
    if chosen.trace_share is not None and not 0 < chosen.trace_share <= 1:
        parser.error("--trace-share must be above 0 and at most 1")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        chosen.peers = choose(chosen.peers, list(PEERS), "peer")
        chosen.cases = choose(chosen.cases, [*CASES, REPLAY.name], "case")
    except ValueError as error:
        parser.error(str(error))
    return chosen


def list_everything() -> None:
    """Print the cases with their peers, and the peers."""
    print("cases")
    for case in (*CASES.values(), REPLAY):
        needs = "  [needs a GPU]" if case.needs_gpu else ""
        print(f"  {case.name:<18} {case.title}{needs}\n  {'':<18} {', '.join(case.peers)}")
    print("\npeers")
    for peer in PEERS.values():
        print(f"  {peer.name:<18} {peer.title}{'  [needs a GPU]' if peer.needs_gpu else ''}")


def replay_case(folder: Path, share: float) -> Case:
    """The case of a folder's traces: a row each."""
    files = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])
    rows = tuple(Row(f.name.partition(".")[0], {"file": str(f.resolve()), "share": str(share)}) for f in files)
    return replace(REPLAY, rows=rows)


def describe_traces(case: Case, share: float) -> list[str]:
    """What each trace needs at the least: the peak of its live bytes, and the page floor over it."""
    from cenote.logs.floor import page_floor
    from cenote.logs.trace import read

    lines = []
    for row in case.rows:
        trace = read(row.parameters["file"])
        trace = trace[: max(1, int(share * len(trace)))]
        floor = page_floor(trace)
        least = f"{floor.peak_bytes:,} bytes live at the most, page floor {floor.ratio:.4f}"
        lines.append(f"{row.label}: {len(trace):,} events, {least}")
    return lines


def is_simulated(wanted: bool) -> bool:
    """Choose the simulated device where it is wanted or where there is no GPU; whether it is chosen."""
    from cenote import DriverUnavailableError, driver, sim

    if wanted:
        sim.configure(devices=1, memory="80GiB")
    try:
        return driver.device_count() >= 0 and driver.is_simulated()
    except DriverUnavailableError:
        return False


def main() -> int:
    """Run the command; its exit status."""
    arguments = parse()
    if arguments.list:
        list_everything()
        return 0
    import os

    if not arguments.simulate and "CENOTE_CUDA_DRIVER" not in os.environ and not _has_gpu():
        print("no GPU: measuring on the simulated device", file=sys.stderr)
        arguments.simulate = True
    simulated = is_simulated(arguments.simulate)

    from tests.bench.machine import describe_machine
    from tests.bench.report import as_markdown, as_record
    from tests.bench.session import Options, Session
    from tests.bench.terminal import TerminalProgress
    from tests.bench.worker import ROOT, environment_of_workers

    machine = describe_machine()
    cases = [CASES[name] for name in arguments.cases if name in CASES]
    notes = []
    if REPLAY.name in arguments.cases:
        if arguments.traces is not None:
            share = arguments.trace_share or (QUICK_SHARE if arguments.quick else 1.0)
            cases.append(replay_case(arguments.traces, share))
            notes += describe_traces(cases[-1], share)
            if share < 1:
                notes.append(f"of each trace the first {share:.0%} was replayed")
        else:
            notes.append("the case replay was not run: it needs --traces DIR")
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    import cenote

    simulator = Path(cenote.__file__).parent / "lib" / "libcenote_sim.so"
    options = Options(
        rounds=rounds,
        quick=arguments.quick,
        simulated=simulated,
        patience_seconds=arguments.patience,
        minutes=arguments.minutes,
        build_folder=arguments.build or ROOT / "build" / "bench",
        environment=environment_of_workers(simulated, simulator, arguments.mimalloc),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    with TerminalProgress() as progress:
        session = Session(cases, arguments.peers, options, progress)
        session.notes += notes
        session.run()
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    subtitle = f"{machine['device']}, {machine['date']}"
    plots: dict[str, str] = {}
    try:
        from tests.bench.plots import draw_all

        plots = draw_all(session.cells, arguments.out, subtitle)
    except ImportError:
        session.notes.append("no plots: matplotlib is missing")
    record = as_record(session, machine, {"command": command, "rounds": rounds, "quick": arguments.quick})
    record["simulated"] = simulated
    (arguments.out / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
    page = as_markdown(session, machine, command, simulated, plots)
    (arguments.out / "bench.md").write_text(page)
    print(f"{arguments.out / 'bench.md'}, bench.json and {len(plots)} plots")
    return 0 if any(cell.measured for cell in session.cells) else 1


def _has_gpu() -> bool:
    """Ask in a process of its own: a driver that was loaded cannot be exchanged for the simulated one."""
    import subprocess

    program = "from cenote import driver; raise SystemExit(0 if driver.device_count() else 1)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
