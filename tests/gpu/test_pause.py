"""Pauses on a device: tensors, arrays and graphs keep their addresses and contents, and others have the memory."""

from __future__ import annotations

import os
import subprocess
import sys

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
    graph_input = torch.zeros(1 << 16, device="cuda")
    graph, output = capture(graph_input)
torch.cuda.synchronize()
copies = [each.cpu() for each in tensors], [each.get() for each in arrays]
addresses = [each.data_ptr() for each in tensors] + [each.data.ptr for each in arrays] + [buffer.ptr]
for cycle in range(20):
    graph_input += 1
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
    graph.replay()
    assert bool((output == 2 * (cycle + 1) + 1).all()), cycle
    if cycle % 10 == 0 or cycle == 19:
        assert all(torch.equal(each.cpu(), copy) for each, copy in zip(tensors, copies[0]))
        assert all((each.get() == copy).all() for each, copy in zip(arrays, copies[1]))
        assert buffer.tobytes() == bytes(range(256)) * 1000
"""


@pytest.mark.alone  # looks at what the device has left
def test_tensors_arrays_buffers_and_a_graph_are_there_again(run) -> None:
    run(SETUP + 'cenote.install("pool", frameworks=["torch", "cupy"], torch_mode="pluggable")\n' + PAUSED)


SAVED = """
from cenote.compat.torch_memory_saver import torch_memory_saver as saver
warm_up()
with saver.region("weights", enable_cpu_backup=True):
    weights = torch.arange(5_000_000, device="cuda", dtype=torch.float32).view(1000, 5000)
    with saver.disable():
        outside = torch.full((MIB,), 3, dtype=torch.uint8, device="cuda")
with saver.region("cache"):
    cache = torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda")
static = torch.zeros(1 << 16, device="cuda")
graph = torch.cuda.CUDAGraph()
with saver.cuda_graph(graph, tag="graph"):
    output = (static * 2 + 1) * 3
copy, half = weights.cpu(), weights[500:].half()
torch.cuda.synchronize()
assert saver.get_cpu_backup(weights) is None
for cycle in range(3):
    free = held_by_nobody()
    saver.pause()
    assert held_by_nobody() >= free + 80 * MIB
    backup = saver.get_cpu_backup(weights, zero_copy=True)
    assert (backup.device.type, backup.dtype, backup.shape) == ("cpu", weights.dtype, weights.shape)
    assert torch.equal(backup, copy) and torch.equal(saver.get_cpu_backup(weights[500:]), copy[500:])
    assert saver.get_cpu_backup(cache) is None and saver.get_cpu_backup(outside) is None
    assert bool((outside == 3).all()) and torch.equal(half.float().cpu(), copy[500:].half().float())
    saver.resume("weights")
    assert torch.equal(weights.cpu(), copy)
    saver.resume()
    static += 1
    graph.replay()
    assert bool((output == (2 * (cycle + 1) + 1) * 3).all()), cycle
"""


def test_torch_memory_savers_names_do_what_they_say(run) -> None:
    run(SETUP + 'cenote.install("pool", frameworks=["torch", "cupy"], torch_mode="pluggable")\n' + SAVED)


USES = {
    "a copy of a buffer": "buffer.tobytes()",
    "a copy of a buffer on the device": "outside.copy_from_device(buffer)",
    "a copy of a tensor": "tensor.cpu()",
    "a copy of an array of CuPy": "array.get()",
    "a copy of an array of Numba": "numba_array.copy_to_host()",
    "a kernel of PyTorch": "tensor + 1",
    "a kernel of CuPy": "array + 1",
    "a graph": "graph.replay()",
}

USED_WHILE_PAUSED = """
import os
from numba import cuda
warm_up()
outside = cenote.DeviceBuffer(size=MIB)
with cenote.region("used"):
    buffer = cenote.DeviceBuffer.to_device(b"x" * MIB)
    tensor = torch.full((MIB,), 7, dtype=torch.uint8, device="cuda")
    array = cupy.full(MIB, 7, dtype=cupy.uint8)
    numba_array = cuda.to_device(tensor.cpu().numpy())
    graph, output = capture(torch.full((1 << 16,), 1.0, device="cuda"))
tensor + 1, array + 1  # loads the kernels
torch.cuda.synchronize()
cenote.pause("used")
try:
    USE
    torch.cuda.synchronize()
except Exception as error:
    print(f"raises {type(error).__module__}.{type(error).__name__}: {str(error).splitlines()[0]}")
else:
    raise SystemExit("nothing was raised")
try:
    cenote.resume("used")
    assert buffer.tobytes() == b"x" * MIB
    assert bool((tensor == 7).all()) and bool((array == 7).all()) and (numba_array.copy_to_host() == 7).all()
    print("afterwards the contents are there")
except Exception as error:
    print(f"afterwards nothing works: {str(error).splitlines()[0]}")
sys.stdout.flush()
os._exit(0)  # where the context is lost, ending may fail
"""


@pytest.mark.parametrize("use", USES)
def test_a_use_of_paused_memory_raises(run, use: str) -> None:
    install = 'cenote.install("pool", frameworks=["torch", "cupy", "numba"], torch_mode="pluggable")\n'
    printed = run("import sys\n" + SETUP + install + USED_WHILE_PAUSED.replace("USE", USES[use], 1))
    print(f"{use}: {printed}")
    assert "raises " in printed
    if use.startswith("a copy"):
        assert "the contents are there" in printed, printed


def run_program(name: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, os.path.join(os.path.dirname(__file__), name), *arguments],
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "CENOTE_CUDA_DRIVER"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alone  # is timed
def test_rates_of_pausing_are_shown_beside_those_of_copying() -> None:
    run_program("pause_rates.py")


@pytest.mark.alone  # is timed, and looks at what the device has left
@pytest.mark.usefixtures("full_allocator")
def test_tensors_of_three_frameworks_and_eight_graphs_are_paused_without_drift() -> None:
    for module in ("cupy", "numba_cuda"):
        pytest.importorskip(module)
    run_program("pause_scene.py")


@pytest.mark.alone  # takes most of the device
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("full_allocator")
def test_a_loop_of_learning_computes_the_same_with_and_without_pauses() -> None:
    run_program("learning_loop.py")
