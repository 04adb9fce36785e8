"""Programs for RMM, word for word, on cenote: each followed by a look at where the memory came from."""

from __future__ import annotations

import pytest

CUPY = """
import rmm
import cupy as cp
mr = rmm.mr.CudaAsyncMemoryResource()
rmm.mr.set_current_device_resource(mr)
buffer = rmm.DeviceBuffer(size=1024)
cp.cuda.set_allocator(rmm.allocators.cupy.rmm_cupy_allocator)
array = cp.zeros(1000)
"""

TORCH = """
import rmm
import torch
from rmm.allocators.torch import rmm_torch_allocator
mr = rmm.mr.CudaAsyncMemoryResource()
rmm.mr.set_current_device_resource(mr)
torch.cuda.memory.change_current_allocator(rmm_torch_allocator)
"""

NUMBA = """
from numba import cuda
from rmm.allocators.numba import RMMNumbaManager
cuda.set_memory_manager(RMMNumbaManager)
"""

ALIAS = "import cenote.compat.as_rmm\n"


def test_cupy_allocates_from_the_current_resource(run):
    run(
        ALIAS
        + CUPY
        + """
import cenote
assert isinstance(buffer, rmm.DeviceBuffer) and isinstance(array.data.mem._owner, rmm.DeviceBuffer)
assert mr.state().in_use >= 1024 + array.nbytes, mr.state()
assert cenote.usage()["cenote"].bytes == 1024 + array.nbytes, cenote.usage()
assert float(array.sum()) == 0.0
with cp.cuda.Stream():
    other = cp.arange(10)
    assert other.data.mem._owner.stream.handle == cp.cuda.get_current_stream().ptr
    assert int(other.sum()) == 45
empty = rmm.allocators.cupy.rmm_cupy_allocator(0)
assert (empty.mem.ptr, empty.mem.size) == (0, 0) and isinstance(empty.mem._owner, rmm.DeviceBuffer)
del array, other
assert cenote.usage()["cenote"].bytes == 1024
"""
    )


def test_torch_allocates_from_the_current_resource(run):
    run(
        ALIAS
        + TORCH
        + """
import cenote
tensor = torch.arange(1000, device="cuda", dtype=torch.float32)
assert cenote.usage()["torch"].bytes >= 4000, cenote.usage()
assert mr.state().in_use >= 4000, mr.state()
assert float(tensor.sum()) == 499500.0
del tensor
assert cenote.usage()["torch"].bytes == 0
"""
    )


def test_numba_allocates_from_the_current_resource(run):
    run(
        ALIAS
        + NUMBA
        + """
import cenote, numpy as np
array = cuda.to_device(np.arange(1000))
assert cenote.usage()["numba"].bytes == 8000, cenote.usage()
assert array.copy_to_host().sum() == 499500
"""
    )


NUMBA_BY_ENVIRONMENT = """
import numpy as np
from numba import cuda
array = cuda.to_device(np.arange(10))
import cenote
assert cenote.usage()["numba"].bytes == 80, cenote.usage()
"""


def test_numba_finds_the_manager_by_its_environment_variable(run, run_command, monkeypatch):
    run(ALIAS + NUMBA_BY_ENVIRONMENT, NUMBA_CUDA_MEMORY_MANAGER="rmm.allocators.numba")
    monkeypatch.setenv("NUMBA_CUDA_MEMORY_MANAGER", "rmm.allocators.numba")
    run_command("cenote.compat.as_rmm", "-c", NUMBA_BY_ENVIRONMENT)


@pytest.mark.parametrize("program", [CUPY, TORCH, NUMBA], ids=["cupy", "torch", "numba"])
def test_command_runs_a_script_that_knows_nothing_of_cenote(program, run_command, tmp_path):
    (tmp_path / "script.py").write_text(program)
    run_command("cenote.compat.as_rmm", str(tmp_path / "script.py"))


def test_statistics_and_profiler_see_what_frameworks_allocate(run):
    run(
        ALIAS
        + TORCH
        + """
from rmm.statistics import ProfilerRecords, profiler, statistics
records = ProfilerRecords()
with statistics():
    with profiler(records=records, name="block"):
        tensor = torch.zeros(1000, device="cuda")
record, = records.records.values()
assert record.num_calls == 1 and record.memory_total >= 4000, record
"""
    )
