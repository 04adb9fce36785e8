"""Each framework is put onto cenote, by its own call and by `install`, and its memory comes from there."""

from __future__ import annotations

CUPY = """
import cenote, cupy as cp
mr = cenote.mr.CudaAsyncMemoryResource()
cenote.mr.set_current_device_resource(mr)
buffer = cenote.DeviceBuffer(size=1024)
cp.cuda.set_allocator(cenote.allocators.cupy.cupy_allocator)
array = cp.zeros(1000)                      # from the same resource
"""

TORCH = """
import torch
from cenote.allocators.torch import torch_allocator
torch.cuda.memory.change_current_allocator(torch_allocator)
"""

NUMBA = """
from numba import cuda
from cenote.allocators.numba import CenoteNumbaManager
cuda.set_memory_manager(CenoteNumbaManager)
"""

INSTALL = """
import cenote
report = cenote.install(resource="pool:initial=64MiB,max=1GiB", frameworks=("torch", "cupy", "numba"))
print(report)
"""


def test_cupy_allocates_from_the_current_resource(run):
    run(
        CUPY
        + """
assert cenote.usage()["cupy"].bytes == array.nbytes, cenote.usage()
assert cenote.usage()["cenote"].bytes == 1024
assert mr.state().in_use >= 1024 + array.nbytes, mr.state()
assert float(array.sum()) == 0.0
del array
assert cenote.usage()["cupy"].bytes == 0
"""
    )


def test_torch_allocates_from_the_current_resource(run):
    run(
        TORCH
        + """
import cenote
tensor = torch.arange(1000, device="cuda", dtype=torch.float32)
assert cenote.usage()["torch"].bytes >= 4000, cenote.usage()
assert float(tensor.sum()) == 499500.0
del tensor
assert cenote.usage()["torch"].bytes == 0
"""
    )


def test_numba_allocates_from_the_current_resource(run):
    run(
        NUMBA
        + """
import cenote, numpy as np
array = cuda.to_device(np.arange(1000))
assert cenote.usage()["numba"].bytes == 8000, cenote.usage()
assert array.copy_to_host().sum() == 499500
free, total = cuda.current_context().get_memory_info()
assert 0 < free < total
del array
cuda.current_context().deallocations.clear()
assert cenote.usage()["numba"].bytes == 0, cenote.usage()
"""
    )


def test_numba_is_put_onto_cenote_by_its_environment_variable(run):
    run(
        """
        import numpy as np
        from numba import cuda
        array = cuda.to_device(np.arange(10))
        import cenote
        assert cenote.usage()["numba"].bytes == 80
        """,
        NUMBA_CUDA_MEMORY_MANAGER="cenote.allocators.numba",
    )


def test_install_puts_all_three_onto_one_pool_and_is_idempotent(run):
    out = run(
        INSTALL
        + """
assert all(row.installed for row in report), report
current = cenote.mr.get_current_device_resource()
again = cenote.install(resource="pool:initial=64MiB,max=1GiB", frameworks=("torch", "cupy", "numba"))
assert all(row.installed for row in again), again
assert cenote.mr.get_current_device_resource() is current
import torch, cupy, numpy, numba.cuda
held = [torch.ones(10, device="cuda"), cupy.ones(10), numba.cuda.to_device(numpy.ones(10))]
assert all(cenote.usage()[name].bytes > 0 for name in ("torch", "cupy", "numba")), cenote.usage()
"""
    )
    assert "current resource: pool:initial=64MiB,max=1GiB | virtual" in out


def test_install_says_why_torch_cannot_be_replaced_any_more(run):
    run(
        """
        import torch
        torch.ones(1, device="cuda")
        import cenote
        row, = cenote.install("pool:initial=64MiB", frameworks=("torch",))
        assert not row.installed and "initialised already" in row.detail, row
        """
    )


def test_the_environment_variable_names_the_resource(run):
    run(
        """
        import cenote
        current = cenote.mr.get_current_device_resource()
        assert current.specification == "statistics | pool:initial=1MiB,max=1GiB | virtual"
        """,
        CENOTE_RESOURCE="statistics | pool:initial=1MiB,max=1GiB",
    )


def test_importing_cenote_loads_no_driver_and_no_framework(run):
    run(
        """
        import sys, cenote
        assert not cenote.driver.is_loaded()
        assert not {"torch", "cupy", "numba"} & set(sys.modules)
        """
    )


def test_the_demo_shows_real_work_of_every_framework(run_command, tmp_path):
    out = run_command("cenote", "demo", "--output", str(tmp_path))
    assert "simulated" not in out.splitlines()[0]
    for word in ("torch", "cupy", "numba"):
        assert word in out
    assert any(tmp_path.glob("*.png")) and any(tmp_path.glob("*.csv"))


def test_info_names_the_device(run, run_command):
    name = run("import cenote.driver as driver; print(driver.device_name(0))").strip()
    assert name in run_command("cenote", "info")


def test_install_sees_that_torch_is_on_cenote_already(run):
    run(
        TORCH
        + """
torch.ones(1, device="cuda")
import cenote
row, = cenote.install("pool:initial=64MiB", frameworks="torch")
assert row.installed and "already" in row.detail, row
"""
    )
