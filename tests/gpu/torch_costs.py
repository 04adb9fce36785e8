"""What a tensor and its free cost on PyTorch's own allocator and on cenote: many rounds, in turns.

    python torch_costs.py [OUTPUT.json]

One process goes back and forth between the two, so that both meet the same clocks and caches. Printed are the minima,
their ratio, and the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 40
CALLS = 4000


def choose(allocator: str) -> None:
    import cenote

    if allocator == "cenote":
        report = cenote.install("pool", frameworks="torch", torch_mode="full")
        assert report, report
    else:
        cenote.uninstall("torch")


def cases() -> dict[str, Callable[[], Any]]:
    import torch

    side = torch.cuda.Stream()
    take, give = torch._C._cuda_cudaCachingAllocator_raw_alloc, torch._C._cuda_cudaCachingAllocator_raw_delete

    def recorded() -> None:
        torch.empty(1000, device="cuda").record_stream(side)

    return {
        "torch.empty of 4 KB": lambda: torch.empty(1000, device="cuda"),
        "torch.empty of 4 MiB": lambda: torch.empty(1 << 20, device="cuda"),
        "torch.empty of 64 MiB": lambda: torch.empty(1 << 24, device="cuda"),
        "raw allocation of 4 KB": lambda: give(take(4000, 0)),
        "raw allocation of 64 MiB": lambda: give(take(1 << 26, 0)),
        "torch.empty, record_stream": recorded,
    }


def time_of(call: Callable[[], Any]) -> float:
    """Give the seconds of one call, of many in a row."""
    import torch

    torch.cuda.synchronize()
    for _ in range(CALLS // 4):  # the caches of the processor, which choosing has filled with other things
        call()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    seconds = (time.perf_counter() - began) / CALLS
    torch.cuda.synchronize()
    return seconds


def main() -> None:
    import torch

    measured = cases()
    live = []
    for allocator in ("native", "cenote"):
        choose(allocator)
        live += [torch.empty(1000, device="cuda") for _ in range(1000)]
    seen: dict[str, dict[str, list[float]]] = {name: {"native": [], "cenote": []} for name in measured}
    for turn in range(ROUNDS):
        for name, call in measured.items():
            for allocator in ("native", "cenote") if turn % 2 else ("cenote", "native"):
                choose(allocator)
                seen[name][allocator].append(1e9 * time_of(call))
    results = {}
    print(f"{'':28} {'PyTorch':>10} {'cenote':>10}   ratio  median of the ratios")
    for name, times in seen.items():
        native, ours = min(times["native"]), min(times["cenote"])
        ratios = [mine / its for mine, its in zip(times["cenote"], times["native"], strict=True)]
        results[name] = {
            "native": native,
            "cenote": ours,
            "ratio": ours / native,
            "median_ratio": statistics.median(ratios),
            "spread": statistics.median(times["native"]) / native - 1,
        }
        row = results[name]
        print(
            f"{name:28} {native:7.0f} ns {ours:7.0f} ns   {row['ratio']:.3f}  {row['median_ratio']:.3f} "
            f"(PyTorch's own median is {1 + row['spread']:.3f} of its minimum)"
        )
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
