"""Numba on cenote: the real numba-cuda on the simulated device, which it loads as ``libcuda.so.1``.

What needs kernels is tested on a device, by tests/gpu.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cenote.sim import _library

pytest.importorskip("numba_cuda")

pytestmark = pytest.mark.slow

RunFresh = Callable[..., CompletedProcess[str]]

BEGIN = """
import gc
import numpy as np
import cenote
from cenote import mr
from numba import cuda
from numba.cuda.cudadrv import driver
from cenote.allocators.numba import CenoteNumbaManager, on_stream

cuda.set_memory_manager(CenoteNumbaManager)


def use(specification):
    mr.set_current_device_resource(mr.from_spec(specification))
    return mr.get_current_device_resource()


def held():
    gc.collect()
    return cenote.usage()["numba"].bytes


"""

OPEN = """
import pickle, sys
import numpy as np
from numba import cuda
from numba.cuda.cudadrv import driver
handle = pickle.load(sys.stdin.buffer)
array = handle.open_array(cuda.current_context(), shape=handle.size // 4, dtype=np.dtype("i4"))
print(array.copy_to_host()[:3].tolist(), flush=True)
sys.stdin.read()
del array
handle.close()
if hasattr(driver.binding.CUipcMemHandle, "reserved"):      # what goes by the bytes alone
    raw, offset = handle.handle.reserved, handle.offset
    with cuda.open_ipc_array(raw, shape=handle.size // 4, dtype=np.dtype("i4"), offset=offset) as array:
        assert array.copy_to_host()[1] == array.copy_to_host()[0] + 1
"""
"""What another process does with a handle."""


@pytest.fixture
def run(run_fresh: RunFresh, tmp_path: Path) -> RunFresh:
    """Runs a program in which both cenote and Numba use the simulated driver."""
    (tmp_path / "libcuda.so.1").symlink_to(_library.find_library())

    def run_on_simulated_device(code: str) -> CompletedProcess[str]:
        lines = code.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        program = f"{BEGIN}open_it = {OPEN!r}\n" + "\n".join(line[indent:] for line in lines)
        return run_fresh(program, LD_LIBRARY_PATH=str(tmp_path), CENOTE_SIM="devices=2,memory=64MiB")

    return run_on_simulated_device


def test_memory_of_every_kind_comes_from_cenote_and_goes_back(run: RunFresh) -> None:
    run("""
        use("pool | virtual")
        kinds = {
            "device": cuda.to_device(np.arange(1000, dtype="i4")),
            "pinned": cuda.pinned_array(1000, dtype="i4"),
            "mapped": cuda.mapped_array(1000, dtype="i4"),
            "managed": cuda.managed_array(1000, dtype="i4"),
        }
        assert held() == 16000, cenote.usage()
        for name in ("pinned", "mapped", "managed"):
            kinds[name][:] = range(1000)
            assert kinds[name].sum() == 499500
        assert (kinds["device"].copy_to_host() == np.arange(1000)).all()
        info = cuda.current_context().get_memory_info()
        assert info.total == 64 << 20 and info.free <= info.total

        # Extents are the block's, also of a slice: Numba asks the driver for them, which knows the page alone.
        begin, end = driver.device_extents(kinds["device"][10:])
        assert end - begin == driver.device_memory_size(kinds["device"]) == 4000
        assert driver.device_memory_size(kinds["mapped"]) == 4000

        del kinds
        assert held() == 0
        empty = cuda.device_array(0), cuda.pinned_array(0), cuda.mapped_array(0), cuda.managed_array(0)
        assert [each.size for each in empty] == [0] * 4
        del empty
        assert held() == 0
        driver_made = cuda.current_context().memhostalloc(100, mapped=True, wc=True)
        assert held() == 0                           # write-combined: the driver's
        del driver_made
        try:
            cuda.device_array(1 << 30)
        except MemoryError as error:
            assert "8.00 GiB" in str(error), error
        else:
            raise SystemExit("no MemoryError")
    """)


def test_cleanup_that_is_deferred_is_done_at_its_end_and_a_reset_frees_all(run: RunFresh) -> None:
    run("""
        CenoteNumbaManager(context=None).reset()     # before it was ever initialised
        context = cuda.current_context()
        context.reset()
        use("pool | virtual")
        array, pinned = cuda.device_array(100, dtype="u1"), cuda.pinned_array(100, dtype="u1")
        with cuda.defer_cleanup():
            with cuda.defer_cleanup():
                del array
            assert held() == 200
            del pinned
            assert held() == 200
            context.memory_manager.deallocations.clear()
            assert held() == 200
        assert held() == 0
        kept = [cuda.device_array(100, dtype="u1"), cuda.mapped_array(100, dtype="u1"), cuda.pinned_array(100)]
        context.reset()
        assert held() == 0
        later = cuda.device_array(100, dtype="u1")   # at the address of a dead one
        del kept
        assert held() == 100
        del later
        assert held() == 0
    """)


def test_array_of_a_stream_is_freed_in_the_order_of_the_stream(run: RunFresh) -> None:
    run("""
        pool = use("pool:initial=2MiB,max=2MiB | cuda")
        stream, other = cuda.stream(), cuda.stream()
        with on_stream(stream):
            array = cuda.device_array(1 << 20, dtype="u1")
            with on_stream(other):
                second = cuda.device_array(1 << 20, dtype="u1")
        address = array.device_ctypes_pointer.value
        del array
        with on_stream(stream):
            again = cuda.device_array(1 << 20, dtype="u1")
        assert again.device_ctypes_pointer.value == address
        assert pool.counters().waits == 0, pool.counters()
        by_stream = cenote.usage(by="stream")
        assert len([name for name, holding in by_stream.items() if holding.bytes == 1 << 20]) == 2, by_stream
        del again, second, stream, other
        assert held() == 0
    """)


def test_another_process_opens_an_array_or_a_slice_and_the_owner_keeps_it_meanwhile(run: RunFresh) -> None:
    run("""
        import pickle, subprocess, sys
        use("pool | virtual")
        padding, array = cuda.device_array(7), cuda.to_device(np.arange(1000, dtype="i4"))
        for part, expected in ((array, "[0, 1, 2]"), (array[100:], "[100, 101, 102]")):
            handle = cuda.current_context().get_ipc_handle(part.gpu_data)
            assert (handle.offset, handle.size) == (4000 - part.nbytes, part.nbytes)
            other = subprocess.Popen([sys.executable, "-c", open_it], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            other.stdin.write(pickle.dumps(handle))
            other.stdin.flush()
            assert other.stdout.readline().decode().strip() == expected
            if part is not array:                    # the array dies here while the other process has it
                del array, part, handle
                assert held() == padding.nbytes + 4000
            other.stdin.close()
            assert other.wait() == 0
        another = cuda.device_array(10, dtype="u1")  # an allocation looks at what has come back
        assert held() == padding.nbytes + 10

        use("pool | virtual:ipc=false")
        try:
            cuda.to_device(np.ones(3)).get_ipc_handle()
        except RuntimeError as error:
            assert "make 'pool | virtual' or 'pool | cuda' current" in str(error), error
        else:
            raise SystemExit("no RuntimeError")
    """)


def test_handle_of_another_form_is_refused(run: RunFresh) -> None:
    run("""
        from cenote.allocators.numba.raw_handle import pack_handle, unpack_handle
        for wrong in ("", "cenote-block:2:cenote-1-2:1:3:4:" + "0" * 32 + ":5", "cenote-block:1:x:1:3:4:00:5"):
            try:
                pack_handle(wrong)
            except ValueError as error:
                assert "no handle" in str(error)
            else:
                raise SystemExit(wrong)
        assert unpack_handle(bytes(64)) is None
    """)


OWN = ("cudadrv.test_host_alloc", "cudadrv.test_cuda_memory", "cudadrv.test_pinned", "cudadrv.test_deallocations")
OWN += ("cudadrv.test_cuda_ndarray", "cudapy.test_ipc")
"""Modules of numba-cuda's own tests, with those of their tests that launch kernels."""
KERNELS = {
    "test_device_array_like_2d_f_transpose",
    "test_device_array_like_2d_transpose",
    "test_devicearray_transpose_T",
    "test_devicearray_transpose_ok",
    "test_kernel_with_buffer",
    "test_kernel_with_strided_memory_view",
    "test_recarray",
}


@pytest.mark.long
def test_numbas_own_tests_without_kernels_pass_on_cenote(run_fresh: RunFresh, tmp_path: Path) -> None:
    pytest.importorskip("filecheck")
    driver = pytest.importorskip("cuda.bindings.driver")
    (tmp_path / "libcuda.so.1").symlink_to(_library.find_library())
    known = KERNELS if hasattr(driver.CUipcMemHandle, "reserved") else KERNELS | {"test_ipc_handle"}
    done = run_fresh(
        f"""
        import subprocess, sys
        modules = ["numba.cuda.tests." + name for name in {OWN!r}]
        print(subprocess.run([sys.executable, "-m", "unittest", *modules], capture_output=True, text=True).stderr)
        """,
        LD_LIBRARY_PATH=str(tmp_path),
        CENOTE_SIM="devices=2,memory=512MiB",
        NUMBA_CUDA_MEMORY_MANAGER="cenote.allocators.numba",
        CENOTE_RESOURCE="pool | virtual",
    )
    failed = set(re.findall(r"^(?:ERROR|FAIL): (\w+)", done.stdout, re.MULTILINE))
    assert "Ran " in done.stdout and failed <= known, done.stdout


def test_process_ends_quietly_with_arrays_of_every_kind(run: RunFresh) -> None:
    done = run("""
        use("pool | virtual")
        kept = [make(100) for make in (cuda.device_array, cuda.pinned_array, cuda.mapped_array, cuda.managed_array)]
        with on_stream(cuda.stream()):
            kept.append(cuda.device_array(100))
    """)
    assert done.stdout == done.stderr == ""
