"""Measures training steps of several processes, one a device: PyTorch's own allocator beside cenote's.

Each process chooses its resource first thing, and its device later, as programs do that are started by ``torchrun``.
A launch is one ``torchrun`` with one arm; it trains a model of GPT-2's size with DDP and with FSDP2. The arms are
interleaved: every round launches each of them once, beginning with another one each time. A step takes as long as that
of the slowest process. A ratio is the median over the rounds of an arm's step to that of PyTorch's own in the same
round.

    python tests/bench/distributed.py --out distributed.json

Needs PyTorch with CUDA and NCCL, and cenote installed. ``--device cpu`` tries the program itself where there is no GPU,
with PyTorch's own arm alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SPECIFICATION = "pool"


@dataclass(frozen=True)
class Arm:
    """Whose allocator it is; `device` says whether cenote is told of the process's device."""

    title: str
    uses_cenote: bool
    names_device: bool = False


ARMS = {
    "torch": Arm("PyTorch's own allocator", False),
    "cenote": Arm(f'cenote.install("{SPECIFICATION}")', True),
    "cenote-device": Arm(f'cenote.install("{SPECIFICATION}", device=rank)', True, True),
}
BASE = "torch"
MODES = ("ddp", "fsdp2")
KILL_AFTER_SECONDS = 150


@dataclass(frozen=True)
class Sizes:
    """Of the model, and of what it is trained on."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50304
    tokens: int = 1024
    batch: int = 8


SMALL = Sizes(layers=2, width=64, heads=2, vocabulary=256, tokens=32, batch=2)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}, with commas (default: all)")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)}, with commas (default: all)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="one a device (default: 2)")
    parser.add_argument("--rounds", type=int, default=4, help="launches of each arm (default: 4)")
    parser.add_argument("--seconds", type=float, default=230, help="begin no round that would end later (default: 230)")
    parser.add_argument("--steps", type=int, default=10, help="steps between two looks at the clock (default: 10)")
    parser.add_argument("--blocks", type=int, default=5, help="of so many steps, in a launch and a mode (default: 5)")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step and process (default: 8)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a tiny model, through gloo")
    parser.add_argument("--out", type=Path, help="a JSON file for everything that was measured")
    parser.add_argument("--worker", metavar="FILE", type=Path, help=argparse.SUPPRESS)  # what torchrun starts
    chosen = parser.parse_args(arguments)
    chosen.arms, chosen.modes = chosen.arms.split(","), chosen.modes.split(",")
    for name, given, known in (("--arms", chosen.arms, tuple(ARMS)), ("--modes", chosen.modes, MODES)):
        unknown = [each for each in given if each not in known]
        if unknown:
            parser.error(f"{name}: {', '.join(map(repr, unknown))} is not known; known are: {', '.join(known)}")
    for name in ("processes", "rounds", "steps", "blocks", "batch"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if chosen.device == "cpu" and any(ARMS[arm].uses_cenote for arm in chosen.arms):
        parser.error("--device cpu is for --arms torch: cenote serves devices")
    return chosen


# What torchrun starts: one process a device.


def train(arm: Arm, options: argparse.Namespace) -> dict[str, Any]:
    """Measure this process's arm; returns seconds a step by mode, one a block, of the slowest process."""
    rank = int(os.environ["LOCAL_RANK"])
    if arm.uses_cenote:  # first thing, before the process has a device
        import cenote

        report = cenote.install(SPECIFICATION, "torch", rank if arm.names_device else None)
        if not report:
            raise SystemExit(f"cenote was not installed:\n{report}")
        if rank == 0:
            print(report, flush=True)

    import torch
    import torch.distributed

    if options.device == "cuda":
        torch.cuda.set_device(rank)
        torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", rank))
    else:
        torch.distributed.init_process_group("gloo")
    measured: dict[str, Any] = {"torch": torch.__version__}
    if options.device == "cuda":
        backend = torch.cuda.get_allocator_backend()
        if (backend in ("cenote", "pluggable")) != arm.uses_cenote:
            raise SystemExit(f"the allocator of PyTorch is {backend!r}, which is not that of the arm")
        measured["device"] = torch.cuda.get_device_name(rank)
    for mode in options.modes:
        measured[mode] = seconds_a_step(mode, rank, options)
    if arm.uses_cenote:
        measured["devices with a resource"] = cenote.registry.devices_with_resource()  # of this process: its own alone
        measured["resource"] = cenote.mr.get_per_device_resource(rank).specification
    torch.distributed.destroy_process_group()  # where a process failed before, torchrun ends the others
    return measured


def seconds_a_step(mode: str, rank: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train anew from the same weights and data; seconds a step, one a block of steps, and the loss at the end."""
    import gc

    import torch
    import torch.distributed

    sizes = replace(Sizes(), batch=options.batch) if options.device == "cuda" else SMALL
    device = torch.device("cuda", rank) if options.device == "cuda" else torch.device("cpu")

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    step = training_step(mode, sizes, device)
    for _ in range(max(3, options.steps)):
        loss = step()
    blocks = []
    for _ in range(options.blocks):
        torch.distributed.barrier()
        wait()
        begin = time.perf_counter()
        for _ in range(options.steps):
            loss = step()
        wait()
        blocks.append((time.perf_counter() - begin) / options.steps)
    slowest = torch.tensor(blocks, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(slowest, torch.distributed.ReduceOp.MAX)
    result = {"seconds": slowest.tolist(), "loss": float(loss)}
    if not math.isfinite(result["loss"]):
        raise SystemExit(f"{mode}: the loss is {result['loss']}")
    del step, loss
    gc.collect()
    return result


def training_step(mode: str, sizes: Sizes, device: Any) -> Callable[[], Any]:
    """Make a model, spread over the processes, and what trains it by one step and returns the loss."""
    import contextlib

    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(7)
    model = make_model(sizes).to(device)
    if mode == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None
        )
        precision: Any = torch.autocast(device.type, dtype=torch.bfloat16)
    else:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for block in model.blocks:
            fully_shard(block, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        precision = contextlib.nullcontext()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    words = torch.randint(sizes.vocabulary, (sizes.batch, sizes.tokens + 1), device=device)

    def step() -> Any:
        with precision:
            logits = model(words[:, :-1])
            loss = cross_entropy(logits.float().flatten(0, 1), words[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def make_model(sizes: Sizes) -> Any:
    """Make a decoder of GPT-2's form, with random weights."""
    import torch
    from torch import nn
    from torch.nn.functional import gelu, scaled_dot_product_attention

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_layers = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
            self.attention_in = nn.Linear(sizes.width, 3 * sizes.width)
            self.attention_out = nn.Linear(sizes.width, sizes.width)
            self.widen, self.narrow = nn.Linear(sizes.width, 4 * sizes.width), nn.Linear(4 * sizes.width, sizes.width)

        def forward(self, x: Any) -> Any:
            parts = self.attention_in(self.before_attention(x)).chunk(3, dim=-1)
            query, key, value = (part.unflatten(-1, (sizes.heads, -1)).transpose(1, 2) for part in parts)
            seen = scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.attention_out(seen.transpose(1, 2).flatten(2))
            return x + self.narrow(gelu(self.widen(self.before_layers(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.place = nn.Embedding(sizes.vocabulary, sizes.width), nn.Embedding(sizes.tokens, sizes.width)
            self.blocks = nn.ModuleList(Block() for _ in range(sizes.layers))
            self.last = nn.LayerNorm(sizes.width)
            self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)

        def forward(self, words: Any) -> Any:
            x = self.word(words) + self.place(torch.arange(words.shape[1], device=words.device))
            for block in self.blocks:
                x = block(x)
            return self.head(self.last(x))

    return Model()


def work(options: argparse.Namespace) -> int:
    """Run as one of torchrun's processes: the first one writes what was measured."""
    measured = train(ARMS[options.arms[0]], options)
    if int(os.environ["RANK"]) == 0:
        options.worker.write_text(json.dumps(measured))
    return 0


# What starts them.


class LaunchError(Exception):
    """A launch ended without a measurement; the text is the end of what it wrote."""


def launch(arm: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one torchrun with one arm."""
    out = folder / "measured.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(options.processes), str(Path(__file__).resolve()), "--worker", str(out), "--arms", arm]
    command += ["--modes", ",".join(options.modes), "--device", options.device]
    command += ["--steps", str(options.steps), "--blocks", str(options.blocks), "--batch", str(options.batch)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    environment.setdefault("OMP_NUM_THREADS", "4")
    environment["PYTHONSAFEPATH"] = "1"  # this script's folder has modules of common names
    environment.setdefault("NCCL_NVLS_ENABLE", "0")  # multicast is not needed, and not to be had on every machine
    with (folder / "log").open("w+") as log:
        run = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            status: int | str = run.wait(KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            status = f"none after {KILL_AFTER_SECONDS} s"
            end(run)
        if status == 0 and out.exists():
            return json.loads(out.read_text())
        log.seek(0)
        tail = log.read()[-8000:]
    raise LaunchError(f"{arm}: exit status {status}\n{tail}")


def end(run: subprocess.Popen[bytes]) -> None:
    """End a torchrun that takes too long; told so, it ends its processes first."""
    run.terminate()
    try:
        run.wait(30)
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()


def order_of_round(arms: Sequence[str], number: int) -> list[str]:
    """The arms, beginning with another one in each round."""
    first = number % len(arms)
    return [*arms[first:], *arms[:first]]


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the rounds that there is time for: the launches, and why others failed."""
    launches: list[dict[str, Any]] = []
    failures: list[str] = []
    begin = time.monotonic()
    longest = 0.0
    for number in range(options.rounds):
        started = time.monotonic()
        if number > 0 and started - begin + longest > options.seconds:
            print(f"no time is left for round {number + 1}", file=sys.stderr, flush=True)
            break
        for arm in order_of_round(options.arms, number):
            before = time.monotonic()
            try:
                measured = launch(arm, options, folder)
            except LaunchError as error:
                failures.append(str(error))
                print(error, file=sys.stderr, flush=True)
                continue
            launches.append({"round": number, "arm": arm, **measured})
            steps = "  ".join(f"{mode} {statistics.median(measured[mode]['seconds']):.5f} s" for mode in options.modes)
            took = time.monotonic() - before
            print(f"round {number + 1}  {arm:<14} {steps}  ({took:.0f} s)", file=sys.stderr, flush=True)
        longest = max(longest, time.monotonic() - started)
    return launches, failures


def summarize(launches: Sequence[dict[str, Any]], arms: Sequence[str], modes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each mode and arm: the median step, its extremes over the launches, the ratio to PyTorch's own.

    The ratio is the median over the rounds that have both; None where there is none.
    """
    rows = []
    for mode in modes:
        step = {(one["round"], one["arm"]): statistics.median(one[mode]["seconds"]) for one in launches}
        for arm in arms:
            own = [seconds for (_, its), seconds in step.items() if its == arm]
            if not own:
                continue
            pairs = [(seconds, step.get((round_, BASE))) for (round_, its), seconds in step.items() if its == arm]
            ratios = [seconds / base for seconds, base in pairs if base]
            rows.append(
                {
                    "mode": mode,
                    "arm": arm,
                    "launches": len(own),
                    "median": statistics.median(own),
                    "least": min(own),
                    "most": max(own),
                    "ratio": statistics.median(ratios) if ratios else None,
                    "ratios": ratios,
                }
            )
    return rows


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Spell the rows as a table of Markdown."""
    lines = ["| mode | arm | launches | s a step | least … most | ratio to PyTorch's own | its least … most |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        ratio, between = "", ""
        if row["ratio"] is not None and row["arm"] != BASE:
            ratio, between = f"{row['ratio']:.3f}", f"{min(row['ratios']):.3f} … {max(row['ratios']):.3f}"
        lines.append(
            f"| {row['mode']} | {ARMS[row['arm']].title} | {row['launches']} | {row['median']:.5f} "
            f"| {row['least']:.5f} … {row['most']:.5f} | {ratio} | {between} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 where a launch failed."""
    options = parse(arguments)
    if options.worker is not None:
        return work(options)
    with tempfile.TemporaryDirectory() as folder:
        launches, failures = measure(options, Path(folder))
    rows = summarize(launches, options.arms, options.modes)
    print(as_table(rows))
    if options.out is not None:
        chosen = {name: value for name, value in vars(options).items() if name not in ("out", "worker")}
        record = {"options": chosen, "rows": rows, "launches": launches, "failures": failures}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
