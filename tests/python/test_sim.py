"""The simulated driver from Python. It is chosen before first use, so that most tests need a process of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import os
import cenote.sim as sim
sim.configure(devices=2, memory="1GiB")
import cenote
def allocate():
    resource = cenote.mr.CudaMemoryResource()
    resource.deallocate(resource.allocate(1000), 1000)
"""


def run_fresh(code: str) -> None:
    """Run the code in a new process; its assertions are the test's."""
    finished = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_configure_selects_the_simulated_driver() -> None:
    run_fresh("""
        assert not sim.is_active()
        allocate()
        assert sim.is_active() and cenote.driver.is_simulated() and cenote.driver.device_count() == 2
    """)


def test_memory_may_be_given_in_bytes_and_the_driver_may_be_old() -> None:
    run_fresh("""
        sim.configure(memory=1 << 30, driver=12040)
        assert os.environ["CENOTE_SIM"] == "devices=1,memory=1073741824B,driver=12040"
        assert cenote.driver.version() == 12040
    """)


def test_devices_may_use_any_memory_of_the_host_where_asked_for() -> None:
    run_fresh("""
        sim.configure(pageable=True)
        assert os.environ["CENOTE_SIM"] == "devices=1,memory=80GiB,pageable=1"
        allocate()
        assert sim.is_active()
    """)


def test_configure_is_refused_once_a_driver_is_in_use() -> None:
    run_fresh("""
        allocate()
        try:
            sim.configure()
        except RuntimeError as error:
            assert "already in use" in str(error)
        else:
            raise AssertionError
    """)


def test_calls_are_counted_by_name() -> None:
    run_fresh("""
        allocate()
        sim.reset_calls()
        allocate()
        allocate()
        assert sim.calls("cuMemAlloc") == sim.calls()["cuMemAlloc"] == 2
        assert sim.calls("cuMemAllocManaged") == 0 and "cuMemAllocManaged" not in sim.calls()
    """)


def test_an_unknown_name_is_an_error_that_tells_the_close_ones() -> None:
    run_fresh("""
        for wrong in (lambda: sim.calls("cuMemAloc"), lambda: sim.fail("cuMemAlloc_v2")):
            try:
                wrong()
            except ValueError as error:
                assert "cuMemAlloc" in str(error).split("close are")[1]
            else:
                raise AssertionError
    """)


@pytest.mark.parametrize("arguments", ["error='CUDA_ERROR_OF_TASTE'", "error=0", "nth=-1"])
def test_a_failure_that_makes_no_sense_is_an_error(arguments: str) -> None:
    run_fresh(f"""
        try:
            sim.fail("cuMemAlloc", {arguments})
        except ValueError:
            pass
        else:
            raise AssertionError
    """)


def test_the_nth_call_fails_with_the_named_error() -> None:
    run_fresh("""
        with sim.failing("cuMemAlloc", nth=2):
            allocate()
            try:
                allocate()
            except MemoryError:
                pass
            else:
                raise AssertionError
            allocate()
        with sim.failing("cuMemAlloc", error="CUDA_ERROR_ILLEGAL_ADDRESS"):
            try:
                allocate()
            except cenote.CudaError:
                pass
            else:
                raise AssertionError
    """)


def test_a_failure_that_never_came_is_cancelled_at_the_end_of_the_block() -> None:
    run_fresh("""
        with sim.failing("cuMemAlloc"):
            pass
        allocate()
    """)


def test_live_objects_are_told() -> None:
    run_fresh("""
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(1000)
        assert sim.live().allocations == 1 and sim.live().device_bytes == 1024
        resource.deallocate(pointer, 1000)
        assert sim.live().allocations == 0 and sim.live().device_bytes == 0
    """)


def test_violations_are_listed_and_cleared() -> None:
    run_fresh("""
        import ctypes
        allocate()
        assert sim.violations() == []
        ctypes.CDLL(str(sim._find_library())).cuMemFree_v2(ctypes.c_void_p(0x123))
        (line,) = sim.violations()
        assert line.startswith("cuMemFree: pointer 0x123")
        sim.clear_violations()
        assert sim.violations() == []
    """)


def test_pending_work_can_be_drained() -> None:
    run_fresh("""
        import ctypes
        allocate()
        driver = ctypes.CDLL(str(sim._find_library()))
        context = ctypes.c_void_p()
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        driver.cuCtxSetCurrent(context)
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(1000)
        assert driver.cuMemsetD8Async(ctypes.c_void_p(pointer), 1, ctypes.c_size_t(1000), None) == 0
        assert sim.pending() == 1
        sim.drain()
        assert sim.pending() == 0
        resource.deallocate(pointer, 1000)
    """)
