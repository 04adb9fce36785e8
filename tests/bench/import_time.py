"""What ``import cenote`` costs a program that imports numpy anyway, in fresh processes.

::

    python -m tests.bench.import_time [--rounds N]

Each round starts a process that imports numpy and then cenote, and times both: what else the machine does falls on
both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

ROUNDS = 20
MODULES = ("numpy", "cenote")
PROGRAM = """
import time
for module in {modules!r}:
    begin = time.perf_counter()
    __import__(module)
    print(time.perf_counter() - begin)
"""


def import_seconds() -> list[float]:
    """Import the modules in a fresh process, one after the other; how long each took, in seconds."""
    program = PROGRAM.format(modules=MODULES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def row(name: str, seconds: list[float]) -> str:
    """One line of the table, in milliseconds."""
    lower, median, upper = statistics.quantiles(seconds, n=4)
    columns = (median, lower, upper, min(seconds), max(seconds))
    return f"{name:<20}" + "".join(f"{1e3 * value:>10.1f}" for value in columns)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many processes (default: %(default)s)")
    rounds = max(2, parser.parse_args().rounds)
    import_seconds()  # reads the files from disk once
    taken = [import_seconds() for _ in range(rounds)]
    print(f"Python {sys.version.split()[0]}, {rounds} processes; milliseconds")
    print(f"{'import':<20}{'median':>10}{'25 %':>10}{'75 %':>10}{'least':>10}{'most':>10}")
    for name, seconds in zip(("numpy", "cenote after numpy"), zip(*taken, strict=True), strict=True):
        print(row(name, list(seconds)))


if __name__ == "__main__":
    main()
