"""Pauses on a device: tensors, arrays and graphs keep their addresses and contents, and others have the memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SETUP = """
import cenote, cupy, torch

MIB = 1 << 20


def held_by_nobody():
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]


def warm_up():
    x = torch.randint(0, 255, (MIB,), dtype=torch.uint8, device="cuda")
    assert torch.equal(x, x.clone())
    y = cupy.arange(MIB, dtype=cupy.uint32)
    assert int((y == y).sum()) == MIB
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            (torch.ones(64, device="cuda") * 2 + 1).sum()
    buffer = cenote.DeviceBuffer(size=MIB)
    del x, y, buffer
    torch.cuda.synchronize()


def capture(graph_input):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = graph_input * 2
        output = doubled + 1
    return graph, output
"""

PAUSED = """
warm_up()
torch.manual_seed(0)
before = held_by_nobody()
with cenote.region("everything") as region:
    tensors = [torch.randint(0, 255, (n,), dtype=torch.uint8, device="cuda") for n in (1, 1000, 300 * MIB, 5 * MIB + 3)]
    arrays = [cupy.arange(n, dtype=cupy.uint32) * 7 for n in (10, 50 * MIB)]
    buffer = cenote.DeviceBuffer.to_device(bytes(range(256)) * 1000)
    inputs = [torch.full((1 << 16,), float(i), device="cuda") for i in range(GRAPHS)]
    graphs = [capture(each) for each in inputs]
torch.cuda.synchronize()
copies = [each.cpu() for each in tensors], [each.get() for each in arrays]
addresses = [each.data_ptr() for each in tensors] + [each.data.ptr for each in arrays] + [buffer.ptr]
for cycle in range(CYCLES):
    for each in inputs:
        each += 1
    given_back = cenote.pause("everything")
    free = held_by_nobody()
    assert free >= before * 0.99, (before, free)
    assert given_back >= 500 * MIB
    others = torch.empty(given_back, dtype=torch.uint8, device="cuda").fill_(255)
    del others
    torch.cuda.synchronize()
    cenote.mr.get_current_device_resource().trim()
    needed = region.paused_nbytes
    assert cenote.resume("everything") == needed == region.nbytes
    assert addresses == [each.data_ptr() for each in tensors] + [each.data.ptr for each in arrays] + [buffer.ptr]
    for number, (graph, output) in enumerate(graphs):
        graph.replay()
        torch.cuda.synchronize()
        wanted = 2 * (number + cycle + 1) + 1
        assert bool((output == wanted).all()), (number, cycle)
    if cycle % 10 == 0 or cycle == CYCLES - 1:
        assert all(torch.equal(each.cpu(), copy) for each, copy in zip(tensors, copies[0]))
        assert all((each.get() == copy).all() for each, copy in zip(arrays, copies[1]))
        assert buffer.tobytes() == bytes(range(256)) * 1000
"""

LEARNING = """
# A generator with graphs and a cache, and a trainer that has the memory while the cache is paused.
def learn(pauses):
    torch.manual_seed(0)
    with cenote.region("cache"):
        cache = torch.zeros(64 * MIB, device="cuda")
        step = torch.zeros(1, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            cache.mul_(0.5).add_(step)
            answer = cache[:1024] * 3
    weights = torch.ones(1024, device="cuda")
    outputs = []
    for cycle in range(CYCLES):
        step.copy_(weights[:1])
        graph.replay()
        outputs.append(answer.cpu())
        torch.cuda.synchronize()
        if pauses:
            cenote.pause("cache")
        gradient = torch.randn(128 * MIB, device="cuda")
        weights += gradient[:1024] * 0.01
        del gradient
        if pauses:
            cenote.resume("cache")
    return outputs


plain, paused = learn(False), learn(True)
assert all(torch.equal(one, other) for one, other in zip(plain, paused))
"""


@pytest.mark.alone  # looks at what the device has left
def test_tensors_arrays_buffers_and_a_graph_are_there_again(run) -> None:
    install = 'cenote.install("pool", frameworks=["torch", "cupy"], torch_mode="pluggable")\nGRAPHS, CYCLES = 1, 20\n'
    run(SETUP + install + PAUSED)


def run_on_the_full_allocator(program: str) -> None:
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()
    install = 'cenote.install("pool", frameworks=["torch", "cupy"], torch_mode="full")\n'
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SETUP) + install + program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "CENOTE_CUDA_DRIVER"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alone  # looks at what the device has left
def test_eight_graphs_of_the_full_allocator_replay_after_each_pause() -> None:
    run_on_the_full_allocator("GRAPHS, CYCLES = 8, 20\n" + PAUSED)


@pytest.mark.alone  # takes much of the device
def test_a_loop_of_learning_computes_the_same_with_and_without_pauses() -> None:
    run_on_the_full_allocator("CYCLES = 100\n" + LEARNING)


def run_program(name: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, os.path.join(os.path.dirname(__file__), name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "CENOTE_CUDA_DRIVER"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alone  # is timed
def test_rates_of_pausing_are_shown_beside_those_of_copying() -> None:
    run_program("pause_rates.py")


@pytest.mark.alone  # is timed, and looks at what the device has left
def test_tensors_of_three_frameworks_and_eight_graphs_are_paused_without_drift() -> None:
    for module in ("torch", "cupy", "numba_cuda"):
        pytest.importorskip(module)
    from cenote.allocators.torch import full_build

    full_build.build()
    run_program("pause_scene.py")
