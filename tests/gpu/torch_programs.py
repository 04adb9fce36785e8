"""Real programs on PyTorch's own allocator, plain and with expandable segments, and on cenote.

    python torch_programs.py [--output RESULT.json] [--rounds 3] [PROGRAM …]

Each program (torch_program_list.py) runs in one process, in turns: its model is made anew for each allocator.

  1. All programs prepare, beside one another. Each runs a few steps with PyTorch's deterministic algorithms: twice on
     PyTorch's own allocator, then on the others. What it computes is the same bit for bit, or DIFFERENT; or PyTorch's
     own two runs differ already.
  2. When all have done so, one after the other is timed, as users run it: rounds of a turn on each allocator. A turn
     first does as many steps as the program has shapes, which are not timed.

Printed are the median of the rounds' ratios to PyTorch's own, how far apart the medians of PyTorch's own rounds lie,
and the peak of reserved bytes. The status is 1 where a program failed or is DIFFERENT.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from torch_program_list import DEVICE, PROGRAMS, Step, release_models

ALLOCATORS = ("native", "expandable", "cenote")
CHECKED = ("native", "native", "expandable", "cenote")
CHECKED_STEPS = 5
SECONDS_TO_PREPARE = 300
SECONDS_TO_TIME = 180

START = time.monotonic()

Begin = Callable[[], Step]


def choose(allocator: str) -> None:
    """Take an allocator for what comes, with nothing left of the one before."""
    import torch

    import cenote

    gc.collect()
    if DEVICE == "cpu":
        return
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    gc.collect()
    torch.cuda.empty_cache()
    if allocator == "cenote":
        report = cenote.install("pool", frameworks="torch", torch_mode="full")
        assert report, report
    else:
        cenote.uninstall("torch")
        torch.cuda.memory._set_allocator_settings(f"expandable_segments:{allocator == 'expandable'}")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def say(what: str) -> None:
    """To the log of the program's process, of which the end is shown if it fails or takes too long."""
    print(f"{time.monotonic() - START:6.1f} s: {what}", file=sys.stderr, flush=True)


def run_turn(begin: Begin, allocator: str, warm: int, steps: int) -> dict[str, Any]:
    """Run the program from its beginning on; the first steps are not timed."""
    import torch

    choose(allocator)
    torch.manual_seed(0)
    step = begin()
    times, seen = [], []
    for number in range(warm + steps):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        value = step(number)
        seen.append(float(value).hex())
        if number >= warm:
            times.append(time.perf_counter() - began)
    reserved = torch.cuda.max_memory_reserved() if DEVICE == "cuda" else 0
    release_models()
    say(f"{warm + steps} steps on {allocator}")
    return {"allocator": allocator, "seen": seen, "times": times, "reserved": reserved}


def be_deterministic(wanted: bool) -> None:
    """Have PyTorch take its deterministic algorithms, and of attention the one that is."""
    import torch

    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cuda.enable_flash_sdp(not wanted)
    torch.backends.cuda.enable_mem_efficient_sdp(not wanted)
    torch.backends.cuda.enable_cudnn_sdp(not wanted)


def check(begin: Begin) -> dict[str, Any]:
    """Compare what the program computes on each allocator."""
    be_deterministic(True)
    turns = [run_turn(begin, allocator, 0, CHECKED_STEPS) for allocator in CHECKED]
    be_deterministic(False)
    first, again, *others = [turn["seen"] for turn in turns]
    if first != again:
        verdict = "PyTorch's own differ"
    else:
        verdict = "same" if all(other == first for other in others) else "DIFFERENT"
    return {"verdict": verdict, **{turn["allocator"]: {"reserved": turn["reserved"]} for turn in turns}}


def run_rounds(begin: Begin, warm: int, steps: int, rounds: int) -> dict[str, Any]:
    """Time turns on each allocator, each of which is first once in three rounds."""
    run_turn(begin, "native", warm, 1)  # the clocks and caches that others have left
    turns = []
    for number in range(rounds):
        order = ALLOCATORS[number % 3 :] + ALLOCATORS[: number % 3]
        turns += [run_turn(begin, allocator, warm, steps) for allocator in order]
    result: dict[str, Any] = {}
    for allocator in ALLOCATORS:
        own = [turn for turn in turns if turn["allocator"] == allocator]
        result[allocator] = {
            "step_ms": 1e3 * statistics.median([each for turn in own for each in turn["times"]]),
            "medians_ms": [1e3 * statistics.median(turn["times"]) for turn in own],
            "reserved": max(turn["reserved"] for turn in own),
        }
    native, ours = result["native"]["medians_ms"], result["cenote"]["medians_ms"]
    result["ratios"] = [mine / its for mine, its in zip(ours, native, strict=True)]
    result["ratio"] = statistics.median(result["ratios"])
    result["spread"] = max(native) / min(native) - 1
    return result


def serve(name: str, rounds: int, threads: int) -> None:
    """Prepare and check the program; time it when a line comes. Each is answered by a line of JSON."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)  # while all prepare
    program = PROGRAMS[name]
    torch.manual_seed(0)
    say("imported")
    begin = program.prepare()
    say("prepared")
    checked = check(begin)
    if rounds > 0:
        for allocator in ALLOCATORS:
            run_turn(begin, allocator, 0, 1)  # loads the kernels that it takes by default
    print(json.dumps(checked), file=answers, flush=True)
    if sys.stdin.readline():
        torch.set_num_threads(os.cpu_count() or 1)
        print(json.dumps(run_rounds(begin, program.warm, program.steps, rounds)), file=answers, flush=True)


class Child:
    """The process of a program."""

    def __init__(self, name: str, rounds: int, threads: int, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.txt"
        command = [sys.executable, __file__, "--rounds", str(rounds), "--serve", str(threads), name]
        environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}
        with self.log.open("w") as noise:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, text=True
            )

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Wait for what it says next; None, and why is printed, if it says nothing."""
        pipe: IO[str] | None = self.process.stdout
        assert pipe is not None
        is_there, _, _ = select.select([pipe], [], [], seconds)
        if is_there and (line := pipe.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process.kill()
        print(f"{self.name} {'failed' if is_there else 'took too long'}: {self.log.read_text()[-600:]}", flush=True)
        return None

    def go_on(self) -> None:
        """Have it do what comes next."""
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)

    def end(self) -> None:
        """Wait for its end; it has nothing to do any more."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def line_of(name: str, result: dict[str, Any]) -> str:
    reserved = "  ".join(f"{result[allocator]['reserved'] / (1 << 20):8.0f}" for allocator in ALLOCATORS)
    timed = ""
    if "ratio" in result:
        rounds = " ".join(f"{ratio:.3f}" for ratio in result["ratios"])
        timed = f"{result['native']['step_ms']:8.2f} ms  {result['ratio']:.3f} ± {result['spread']:.3f} ({rounds})  "
    return f"{name:42} {result['verdict']:20} {timed}MiB: {reserved}"


def run_programs(names: list[str], rounds: int, output: Path | None) -> int:
    """Prepare all, then time one after the other; give the number of those that failed."""
    threads = max(1, (os.cpu_count() or 1) // max(1, len(names)))
    results: dict[str, dict[str, Any]] = {}
    print("program, losses, step; cenote beside PyTorch's own ± its spread; peak reserved: ", *ALLOCATORS, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        children = [Child(name, rounds, threads, Path(folder)) for name in names]
        until = time.monotonic() + SECONDS_TO_PREPARE
        ready = []
        for child in children:
            if (checked := child.answer(max(0.0, until - time.monotonic()))) is not None:
                results[child.name] = checked
                ready.append(child)
        for child in ready:
            if rounds > 0:
                child.go_on()
                if (timed := child.answer(SECONDS_TO_TIME)) is None:
                    results.pop(child.name)
                    continue
                results[child.name] |= timed
            print(line_of(child.name, results[child.name]), flush=True)
            child.end()
            if output is not None:
                output.write_text(json.dumps(results, indent=1))
    return sum(name not in results or results[name]["verdict"] == "DIFFERENT" for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="0: compare what is computed, and time nothing")
    parser.add_argument("--serve", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    usual = [name for name, program in PROGRAMS.items() if not program.only_by_name]
    parser.add_argument("programs", nargs="*", default=usual, help=f"of {', '.join(PROGRAMS)}")
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.programs[0], given.rounds, given.serve)
        return 0
    return 1 if run_programs(given.programs, given.rounds, given.output) else 0


if __name__ == "__main__":
    sys.exit(main())
