"""What cenote costs for each device, process and node: host memory, start-up, files, threads, and a pair's time.

::

    python tests/bench/scaling.py --out DIR [--devices 8] [--processes 64]    writes DIR/scaling.md and scaling.json

One process uses one device after the other. Then 1, 8, … processes, each on the device of its number, live at the same
time. What a process has is what Linux says of it: memory of its own is ``Private_*`` of ``smaps_rollup``, without what
it shares with others, such as the library's code. Runs on the simulated device as on GPUs; on those the driver has a
context for each process and device, which the table shows too, as "chosen".
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BLOCKS = 10_000
PAIRS = 20_000
SPECIFICATION = "pool:max=256MiB"


def held_by_process() -> dict[str, int]:
    """Say what this process has of the host, in bytes and numbers."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    private = sum(int(words[1]) * 1024 for words in lines if words[0].startswith("Private_"))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "private": private,
        "addresses": int(status["VmSize"].split()[0]) * 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def work(devices: list[int]) -> list[dict[str, Any]]:
    """Use cenote on the devices, and say what each step has added."""
    steps: list[dict[str, Any]] = []
    began, before = time.perf_counter(), held_by_process()

    def end_of(step: str, **more: Any) -> None:
        nonlocal began, before
        took, now = time.perf_counter() - began, held_by_process()
        steps.append({"step": step, "seconds": took, **{name: now[name] - before[name] for name in now}, **more})
        before, began = held_by_process(), time.perf_counter()

    import cenote

    end_of("import")
    cenote.install(SPECIFICATION, frameworks=())
    end_of("install")
    kept = []
    for device in devices:
        cenote.driver.set_device(device)
        end_of(f"device {device} chosen")
        kept.append(cenote.DeviceBuffer(size=1000))
        end_of(f"device {device} has its pool")
    resource = cenote.mr.get_current_device_resource()
    addresses = [resource.allocate(4096) for _ in range(BLOCKS)]
    end_of(f"{BLOCKS:,} blocks")
    for address in addresses:
        resource.deallocate(address, 4096)
    began_pairs = time.process_time()
    for _ in range(PAIRS):
        resource.deallocate(resource.allocate(4096), 4096)
    end_of("pairs", nanoseconds=(time.process_time() - began_pairs) / PAIRS * 1e9)
    return steps


def be_worker(devices: list[int]) -> None:
    """Measure, tell, and stay until the other side closes the pipe."""
    print(json.dumps({"steps": work(devices), "all": held_by_process()}), flush=True)
    sys.stdin.read()


@contextmanager
def worker(devices: list[int]) -> Iterator[subprocess.Popen[str]]:
    """Start a process that measures."""
    command = [sys.executable, __file__, "--worker", ",".join(map(str, devices))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for what a worker has measured."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def measure_together(processes: int, devices: int) -> dict[str, Any]:
    """Have so many processes live at the same time."""
    began = time.perf_counter()
    with ExitStack() as alive:
        workers = [alive.enter_context(worker([number % devices])) for number in range(processes)]
        told = [told_by(each) for each in workers]
        seconds = time.perf_counter() - began
    return {"processes": processes, "seconds": seconds, "told": told}


def row(step: str, of: list[dict[str, Any]]) -> str:
    """Write a line of the first table: the median of several steps."""
    seconds, private, addresses, files, threads = (
        statistics.median(each[name] for each in of) for name in ("seconds", "private", "addresses", "files", "threads")
    )
    figures = (
        f"{seconds * 1000:.1f}",
        f"{private / 1024:,.0f}",
        f"{addresses / 2**20:,.0f}",
        f"{files:.0f}",
        f"{threads:.0f}",
    )
    return f"| {step} | {' | '.join(figures)} |"


def report(one: dict[str, Any], together: list[dict[str, Any]], machine: str) -> str:
    """Write the tables."""
    steps = {each["step"]: each for each in one["steps"]}
    pools = [each for name, each in steps.items() if name.endswith("has its pool")]
    chosen = [each for name, each in steps.items() if name.endswith("chosen")]
    blocks = f"{BLOCKS:,} blocks"
    lines = [
        f"{machine}\n",
        "| one process | ms | own memory, KiB | addresses, MiB | files | threads |",
        "|---|--:|--:|--:|--:|--:|",
        row("`import cenote`", [steps["import"]]),
        row("`cenote.install`", [steps["install"]]),
        row("the first device, chosen", chosen[:1]),
        row("its pool, with a block", pools[:1]),
    ]
    if pools[1:]:
        lines += [
            row(f"each of {len(pools) - 1} more devices, chosen", chosen[1:]),
            row("its pool, with a block", pools[1:]),
        ]
    lines += [
        row(f"{blocks} in use at a time", [steps[blocks]]),
        "",
        "| processes | until all have worked, s | own memory of each, MiB | files | threads | a pair, ns of CPU |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for each in together:
        private, files, threads = (
            statistics.median(told["all"][name] for told in each["told"]) for name in ("private", "files", "threads")
        )
        pair = statistics.median(told["steps"][-1]["nanoseconds"] for told in each["told"])
        figures = (f"{each['seconds']:.2f}", f"{private / 2**20:.1f}", f"{files:.0f}", f"{threads:.0f}", f"{pair:.0f}")
        lines.append(f"| {each['processes']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        be_worker([int(device) for device in options.worker.split(",")])
        return
    if options.out is None:
        parser.error("--out names the folder for the tables")
    with worker(list(range(options.devices))) as one:
        alone = told_by(one)
    numbers = sorted({1, min(8, options.processes), options.processes})
    together = [measure_together(number, options.devices) for number in numbers]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{os.environ.get('CENOTE_CUDA_DRIVER', 'GPU')}, {options.devices} devices, {datetime.date.today():%B %Y}"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.json").write_text(json.dumps({"one": alone, "together": together}, indent=1))
    (options.out / "scaling.md").write_text(report(alone, together, machine))
    print(report(alone, together, machine))


if __name__ == "__main__":
    main()
