"""Training on several devices, as torchrun starts it, on PyTorch's own allocator and on cenote, in turns.

    torchrun --nproc-per-node 2 torch_distributed.py [--rounds 5] [--output RESULT.json]

The script installs cenote first thing, before a rank has chosen its device, as users do. Then each rank trains one
model as DistributedDataParallel and one by FSDP2, both in rounds of a turn on each allocator: in every second round
cenote comes first. Printed are the median step times of the slowest rank, the ratio to PyTorch's own with how far apart
the medians of PyTorch's own rounds lie, the peak of reserved bytes of a rank, and whether the losses were the same.
The status is 1 where they were not, with PyTorch's deterministic algorithms.
"""

from __future__ import annotations

import cenote

REPORT = cenote.install("pool", frameworks="torch", torch_mode="full")

import argparse  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from torch_programs import be_deterministic, choose  # noqa: E402

WARM_STEPS = 4
STEPS = 14
CHECKED_STEPS = 4
LENGTHS = (512, 384, 448, 512, 320)

Wrap = Callable[[torch.nn.Module], torch.nn.Module]


def as_ddp(model: torch.nn.Module) -> torch.nn.Module:
    return DistributedDataParallel(model, device_ids=[torch.cuda.current_device()])


def as_fsdp2(model: torch.nn.Module) -> torch.nn.Module:
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


WRAPS: dict[str, Wrap] = {"DDP": as_ddp, "FSDP2": as_fsdp2}


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(1024, 16, 4096, dropout=0.0, batch_first=True, norm_first=True)
    return torch.nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)


def train(initial: torch.nn.Module, wrap: Wrap, steps: int) -> tuple[list[float], list[str]]:
    """Train a copy of the model; give the seconds and the losses of its steps."""
    model = wrap(copy.deepcopy(initial).cuda())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    times, losses = [], []
    for number in range(steps):
        generator = torch.Generator().manual_seed(1000 * dist.get_rank() + number)
        x = torch.randn(8, LENGTHS[number % len(LENGTHS)], 1024, generator=generator).cuda()
        dist.barrier()
        torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = (model(x) - x).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item().hex())
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times, losses


def slowest(seconds: float) -> float:
    value = torch.tensor(seconds, device="cuda", dtype=torch.float64)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return float(value)


def compare(name: str, initial: torch.nn.Module, rounds: int) -> dict[str, Any]:
    wrap = WRAPS[name]
    be_deterministic(True)
    seen = []
    for allocator in ("native", "native", "cenote"):
        choose(allocator)
        seen.append(train(initial, wrap, CHECKED_STEPS)[1])
    be_deterministic(False)
    verdict = "PyTorch's own differ" if seen[0] != seen[1] else "same" if seen[1] == seen[2] else "DIFFERENT"
    medians: dict[str, list[float]] = {"native": [], "cenote": []}
    reserved: dict[str, int] = {}
    for number in range(rounds):
        for allocator in ("cenote", "native") if number % 2 else ("native", "cenote"):
            choose(allocator)
            times, _ = train(initial, wrap, WARM_STEPS + STEPS)
            medians[allocator].append(slowest(statistics.median(times[WARM_STEPS:])))
            reserved[allocator] = torch.cuda.max_memory_reserved()
    own, ours = medians["native"], medians["cenote"]
    return {
        "program": name,
        "losses": verdict,
        "own_ms": 1e3 * statistics.median(own),
        "ratio": statistics.median([b / a for a, b in zip(own, ours, strict=True)]),
        "spread": max(own) / min(own) - 1,
        "reserved": reserved,
        "medians": medians,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    assert REPORT, REPORT
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    x = torch.ones(1 << 20, device="cuda")  # the usual order: on cenote, on the device that was chosen afterwards
    assert cenote.usage()["torch"].bytes >= 4 << 20, cenote.usage()
    del x
    initial = make_model()
    results = [compare(name, initial, given.rounds) for name in WRAPS]
    if dist.get_rank() == 0:
        for each in results:
            mib = {name: count >> 20 for name, count in each["reserved"].items()}
            print(
                f"{each['program']:6} on {dist.get_world_size()} devices: losses {each['losses']}; own "
                f"{each['own_ms']:.2f} ms, cenote {each['ratio']:.3f} ± {each['spread']:.3f} of it; reserved MiB {mib}",
                flush=True,
            )
        if given.output is not None:
            given.output.write_text(json.dumps(results, indent=1))
    dist.barrier()
    dist.destroy_process_group()
    return int(any(each["losses"] == "DIFFERENT" for each in results))


if __name__ == "__main__":
    sys.exit(main())
