"""A region with tensors of three frameworks and eight captured graphs, paused and resumed again and again.

    python pause_scene.py [GIB] [KEEP]       20 GiB, or what the device and a third of the host have; "host" or "peer:1"

A third each is PyTorch's, CuPy's and Numba's. After each pause the addresses are the same, each framework compares its
contents byte for byte, and the graphs are replayed. The device must have all memory back meanwhile, within 1 % of what
it had free before the region's first allocation. Printed are the rates beside plain copies of the same run, for a few
pauses of the whole size, and how far the free memory drifts in 200 pauses of a smaller region.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import cupy
import numpy as np
import torch
from numba import cuda
from pause_rates import GIB, MIB, PART, plain_rates, seconds, size_to_take

import cenote
from cenote import pausing

GRAPHS = 8
PAUSES = 4
SMALL_PART = 32 * MIB
SMALL_PARTS = 12
CYCLES = 200
DRIFT = 8 * MIB


@cuda.jit
def count_differences(one: Any, other: Any, count: Any) -> None:
    i = cuda.grid(1)
    if i < one.size and one[i] != other[i]:
        cuda.atomic.add(count, 0, 1)


def capture(number: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
    """A graph with its input and output, and memory in between."""
    graph_input = torch.full((MIB,), float(number), device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = graph_input * 2
        output = doubled + 1
    return graph, graph_input, output


class Scene:
    """`count` arrays of `part` bytes, in turn of the three frameworks, and the graphs, in a region."""

    def __init__(self, name: str, part: int, count: int) -> None:
        words = part // 4
        make = (
            lambda: torch.empty(words, dtype=torch.int32, device="cuda"),
            lambda: cupy.empty(words, dtype=cupy.int32),
            lambda: cuda.device_array(words, dtype=np.int32),
        )
        self.name = name
        self.expected = torch.empty(words, dtype=torch.int32, device="cuda")
        self.differences = cuda.to_device(np.zeros(1, np.int32))
        self.free_before = torch.cuda.mem_get_info()[0]
        with cenote.region(name) as self.region:
            self.parts: list[Any] = [make[number % 3]() for number in range(count)]
            self.graphs = [capture(number) for number in range(GRAPHS)]
        self.replays = 0
        for number, part_of_it in enumerate(self.parts):
            self.expect(number)
            torch.as_tensor(part_of_it, device="cuda").copy_(self.expected)
        torch.cuda.synchronize()
        self.addresses = self.find_addresses()
        self.nbytes = part * count + sum(each.nbytes for _, *arrays in self.graphs for each in arrays)
        assert self.region.nbytes >= self.nbytes, "not all of it lies in the region"

    def find_addresses(self) -> list[int]:
        arrays = [*self.parts, *(each for _, *pair in self.graphs for each in pair)]
        return [each.__cuda_array_interface__["data"][0] for each in arrays]

    def expect(self, number: int) -> None:
        """Contents that differ from word to word and from part to part."""
        torch.arange(len(self.expected), out=self.expected)
        self.expected.mul_(2 * number + 1).add_(number)

    def is_as_expected(self, number: int) -> bool:
        """Asks the framework whose part it is."""
        part = self.parts[number]
        self.expect(number)
        if number % 3 == 0:
            return torch.equal(part, self.expected)
        if number % 3 == 1:
            return bool((part == cupy.asarray(self.expected)).all())
        expected = cuda.as_cuda_array(self.expected)
        self.differences.copy_to_device(np.zeros(1, np.int32))
        count_differences[-(-part.size // 256), 256](part, expected, self.differences)
        return int(self.differences.copy_to_host()[0]) == 0

    def check(self) -> None:
        assert self.find_addresses() == self.addresses
        self.replays += 1
        for number, (graph, graph_input, output) in enumerate(self.graphs):
            graph_input += 1
            graph.replay()
            assert bool((output == 2 * (number + self.replays) + 1).all()), f"graph {number}"
        wrong = [number for number in range(len(self.parts)) if not self.is_as_expected(number)]
        assert not wrong, f"contents differ: {wrong}"
        torch.cuda.synchronize()

    def pause_and_resume(self, keep: str) -> tuple[float, float, int]:
        """Seconds of both, and what the device had free in between."""
        allocated = torch.cuda.memory_allocated()
        pause_seconds = seconds(lambda: cenote.pause(self.name, keep))
        free = torch.cuda.mem_get_info()[0]
        assert torch.cuda.memory_allocated() == allocated
        return pause_seconds, seconds(lambda: cenote.resume(self.name)), free

    def close(self) -> None:
        """Gives its memory back; what the checks have used stays with the resource around it, for the next scene."""
        del self.parts, self.graphs, self.expected, self.differences
        gc.collect()
        torch.cuda.synchronize()
        cuda.current_context().deallocations.clear()
        for pool in self.region.pools:
            pool.trim()


def show_rates(size: int, keep: str) -> None:
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    out, back = plain_rates(stream, keep)
    scene = Scene("scene", PART, size // PART)
    scene.check()
    print(
        f"{torch.cuda.get_device_name()}: {scene.nbytes / GIB:.2f} GiB in {len(scene.parts)} arrays of PyTorch, CuPy "
        f"and Numba, and {GRAPHS} graphs, kept in {keep}; plain copies {out / 1e9:.1f} GB/s out, {back / 1e9:.1f} GB/s "
        "back"
    )
    for number in range(PAUSES):
        pause_seconds, resume_seconds, free = scene.pause_and_resume(keep)
        rate, rate_back = scene.nbytes / pause_seconds, scene.nbytes / resume_seconds
        missing = scene.free_before - free
        print(
            f"pause {number + 1}: {rate / 1e9:5.1f} GB/s ({rate / out:4.0%}), resume {rate_back / 1e9:5.1f} GB/s "
            f"({rate_back / back:4.0%}); while paused, {missing / MIB:.0f} MiB less free than before the region "
            f"({missing / scene.free_before:.2%})",
            flush=True,
        )
        assert missing <= scene.free_before // 100, "the device has not got its memory back"
        scene.check()
    scene.close()


def show_drift(keep: str) -> None:
    scene = Scene("small scene", SMALL_PART, SMALL_PARTS)
    free, held = [], []
    for _ in range(CYCLES):
        free.append(scene.pause_and_resume(keep)[2])
        held.append(scene.region.nbytes)
        scene.check()
    drift = free[1] - min(free[1:])  # the first pause pins memory
    print(
        f"{CYCLES} pauses of {scene.nbytes / GIB:.2f} GiB: contents and graphs are right after each; at least "
        f"{min(free) / GIB:.3f} GiB free while paused, {drift / MIB:.0f} MiB less than at the second pause; the region "
        f"holds {held[0] / MIB:.0f} MiB after the first, {held[-1] / MIB:.0f} MiB after the last"
    )
    assert drift <= DRIFT, free
    assert held[-1] <= held[0] + DRIFT, held
    scene.close()


def main() -> None:
    keep = sys.argv[2] if len(sys.argv) > 2 else "host"
    report = cenote.install("pool", frameworks=["torch", "cupy", "numba"], torch_mode="full")
    assert report, report
    size = size_to_take(float(sys.argv[1]) if len(sys.argv) > 1 else None, 3)
    warm = Scene("warm-up", PART, 3)  # loads the kernels, whose code the device keeps
    warm.pause_and_resume(keep)
    warm.check()
    warm.close()
    pausing.keep_pinned(0)  # so that the first pause pins its memory itself
    pausing.keep_pinned("64GiB")
    show_rates(size, keep)
    show_drift(keep)


if __name__ == "__main__":
    main()
