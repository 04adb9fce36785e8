"""Numba on a device: kernels on memory of every kind, arrays that die early, other processes, and Numba's own tests.

What needs no kernel is tested with the real numba-cuda on the simulated device: tests/python/test_numba.py.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

pytest.importorskip("numba_cuda")

BEGIN = """
import gc
import numpy as np
import cenote
from cenote.allocators.numba import CenoteNumbaManager, on_stream
from numba import cuda
from numba.cuda.cudadrv import driver
cuda.set_memory_manager(CenoteNumbaManager)
cenote.mr.set_current_device_resource(cenote.mr.from_spec("pool:max=2GiB"))

@cuda.jit
def write_late(array, value, microseconds):
    for _ in range(microseconds):
        cuda.nanosleep(1000)
    i = cuda.grid(1)
    if i < array.size:
        array[i] = value
"""


def test_kernels_use_memory_of_every_kind(run):
    run(
        BEGIN
        + """
arrays = {
    "device": cuda.device_array(1000, dtype="i4"),
    "mapped": cuda.mapped_array(1000, dtype="i4"),
    "managed": cuda.managed_array(1000, dtype="i4"),
}
for name, array in arrays.items():
    write_late[4, 256](array, 7, 10)
    cuda.synchronize()
    host = array.copy_to_host() if name == "device" else array
    assert (host == 7).all(), name
pinned = cuda.pinned_array(1000, dtype="i4")
pinned.fill(123)
array = cuda.to_device(pinned)                       # as test_host_alloc_pinned of Numba's
driver.device_memset(array, 0, driver.device_memory_size(array))
array.copy_to_host(pinned)
assert (pinned == 0).all()
del arrays, array, pinned, host
gc.collect()
assert cenote.usage()["numba"].bytes == 0, cenote.usage()
"""
    )


@pytest.mark.parametrize("is_of_stream", [False, True])
def test_arrays_die_while_kernels_use_them(run, is_of_stream):
    run(
        BEGIN
        + f"is_of_stream = {is_of_stream}\n"
        + """
import contextlib
owned = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
stream = cuda.external_stream(owned.handle)
scope = (lambda: on_stream(stream)) if is_of_stream else contextlib.nullcontext
size = 1 << 20
with scope():
    write_late[size // 256, 256, stream](cuda.device_array(size, dtype="i4"), 1, 10)   # compiles
cuda.synchronize()
for round in range(20):
    with scope():
        array = cuda.device_array(size, dtype="i4")
    write_late[size // 256, 256, stream](array, 1, 2000)
    del array                                        # while the kernel is to write to it
    with scope():
        others = [cuda.device_array(size, dtype="i4") for _ in range(4)]
    for other in others:
        write_late[size // 256, 256, stream if is_of_stream else 0](other, 2, 1)
    cuda.synchronize()
    for other in others:
        assert (other.copy_to_host() == 2).all(), round
    del others, other
"""
    )


def test_another_process_reads_an_array_by_its_handle_and_by_the_bytes_of_it(run, tmp_path):
    program = tmp_path / "owner.py"
    program.write_text("""
import multiprocessing
import numpy as np

def read(handle, raw):
    from cuda.bindings.driver import CUipcMemHandle
    from numba import cuda
    whole = [999]
    if hasattr(CUipcMemHandle, "reserved"):          # else Numba itself cannot make a handle of bytes
        with cuda.open_ipc_array(raw, shape=1000, dtype=np.dtype("i4")) as array:
            whole = array.copy_to_host()
    part = handle.open_array(cuda.current_context(), shape=900, dtype=np.dtype("i4"))
    values = part.copy_to_host()
    del part
    handle.close()
    return whole[-1], values[0]

if __name__ == "__main__":
    import cenote
    from numba import cuda
    cenote.install("pool | virtual", frameworks="numba")
    array = cuda.to_device(np.arange(1000, dtype="i4"))
    context = cuda.current_context()
    handle = context.get_ipc_handle(array.gpu_data)
    part = context.get_ipc_handle(array[100:].gpu_data)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read, (part, handle.handle.reserved)) == (999, 100)
""")
    run(f"import subprocess, sys; subprocess.run([sys.executable, {str(program)!r}], check=True)")


OWN = {
    "memory": [
        "cudadrv.test_host_alloc",
        "cudadrv.test_cuda_memory",
        "cudadrv.test_deallocations",
        "cudadrv.test_pinned",
    ],
    "arrays": ["cudadrv.test_cuda_ndarray", "cudadrv.test_streams"],
    "processes": ["cudapy.test_ipc"],
}
"""Modules of numba-cuda's own tests. test_managed_alloc is not among them: it takes more than the device has."""

FILECHECK = {"matcher": "Matcher", "options": "Options", "parser": "Parser, pattern_for_opts", "finput": "FInput"}
"""What numba-cuda's tests import for those of compiled code."""


# Numba's tests give another process four seconds to start.
@pytest.mark.parametrize("part", ["memory", "arrays", pytest.param("processes", marks=pytest.mark.alone)])
def test_numbas_own_tests_pass_on_cenote(run, tmp_path, part):
    if importlib.util.find_spec("filecheck") is None:
        (tmp_path / "filecheck").mkdir()
        (tmp_path / "filecheck" / "__init__.py").touch()
        for module, names in FILECHECK.items():
            (tmp_path / "filecheck" / f"{module}.py").write_text(f"{names.replace(',', ' =')} = None\n")
    run(
        f"""
        import subprocess, sys
        modules = ["numba.cuda.tests." + name for name in {OWN[part]!r}]
        finished = subprocess.run([sys.executable, "-m", "unittest", *modules], capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr[-4000:]
        """,
        NUMBA_CUDA_MEMORY_MANAGER="cenote.allocators.numba",
        CENOTE_RESOURCE="pool | virtual",
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
