"""What ``import cenote`` costs beyond ``import numpy``, in fresh processes.

::

    python -m tests.bench.import_time [--rounds N]

Each round starts one process that imports numpy and one that imports numpy and cenote, one
after the other, so that what else the machine does falls on both. A process times itself, from its first statement.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PROGRAMS = {"numpy": ("numpy",), "numpy, cenote": ("numpy", "cenote")}
ROUNDS = 20


def import_seconds(modules: tuple[str, ...]) -> float:
    """Import the modules in a fresh process; the time that took, in seconds."""
    imports = "\n".join(f"import {module}" for module in modules)
    code = f"import time\nbegin = time.perf_counter()\n{imports}\nprint(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def row(name: str, seconds: list[float]) -> str:
    """One line of the table, in milliseconds."""
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return f"{name:<24}{median * 1e3:>10.1f}{lower * 1e3:>10.1f}{upper * 1e3:>10.1f}{min(seconds) * 1e3:>10.1f}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured (default: %(default)s)")
    rounds = max(2, parser.parse_args().rounds)
    for modules in PROGRAMS.values():
        import_seconds(modules)  # reads the files from disk once
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, modules in PROGRAMS.items():
            taken[name].append(import_seconds(modules))
    without, with_cenote = taken.values()
    print(f"Python {sys.version.split()[0]}, {rounds} rounds; milliseconds")
    print(f"{'import':<24}{'median':>10}{'25 %':>10}{'75 %':>10}{'least':>10}")
    for name, seconds in taken.items():
        print(row(name, seconds))
    print(row("cenote beyond numpy", [after - before for before, after in zip(without, with_cenote, strict=True)]))


if __name__ == "__main__":
    main()
