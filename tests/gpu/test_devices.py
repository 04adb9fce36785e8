"""Several devices in one process: what is installed holds for each, and memory is copied between them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def two_devices(run: Run) -> None:
    answers = run("""
        import ctypes
        import cenote.driver
        if cenote.driver.device_count() < 2:
            print("two devices are needed")
        else:
            can, driver = ctypes.c_int(), ctypes.CDLL("libcuda.so.1")
            assert driver.cuDeviceCanAccessPeer(ctypes.byref(can), 0, 1) == 0
            print("" if can.value else "the devices do not reach each other's memory")
    """)
    if answers.strip():
        pytest.skip(answers.strip())


@pytest.mark.parametrize("specification", ["pool:initial=64MiB | cuda", "async", "pool:initial=64MiB | async"])
def test_what_is_installed_first_thing_holds_for_the_device_that_is_chosen_later(run: Run, specification: str) -> None:
    run(f"""
        import cenote
        report = cenote.install({specification!r}, frameworks="torch")
        assert report and report.resource == {specification!r}, report
        assert not any(each.is_made for each in report.devices), report
        import torch
        torch.cuda.set_device(1)
        first = torch.arange(1000, device="cuda")
        assert first.device.index == 1
        assert cenote.registry.devices_with_resource() == [1]
        second = torch.arange(1000, device="cuda:0")
        for device in (0, 1):
            assert cenote.registry.find_per_device_resource(device).specification == {specification!r}
        assert int(first.sum()) == int(second.sum()) == 499500
        assert cenote.usage()["torch"].allocations >= 2
    """)


def test_blocks_of_all_devices_are_found_where_cuda_was_in_use_before(run: Run, full_allocator: str) -> None:
    program = """
        import torch
        before = [torch.zeros(1000, device=f"cuda:{device}") for device in (0, 1)]
        import cenote
        assert cenote.install("pool", frameworks="torch", torch_mode="full")
        kept = [torch.ones(1000, device=f"cuda:{device}") for device in (0, 1, 0, 1)]
        side = torch.cuda.Stream(device=0)
        kept[0].record_stream(side)
        assert [each["device"] for each in torch.cuda.memory_snapshot() if each["allocated_size"]].count(1) >= 1
        while kept:  # the first one is of the device that was not the last to be allocated on
            del kept[0]
        torch.cuda.synchronize(0)
        torch.cuda.empty_cache()  # finishes the free of the one that another stream has used
        assert cenote.usage()["torch"].bytes == 0
        del before
        assert torch.cuda.memory_allocated(0) == torch.cuda.memory_allocated(1) == 0
    """
    run(program, XDG_CACHE_HOME=full_allocator)


COPY = """
    import cenote
    assert cenote.install({specification!r}, frameworks="torch")
    import torch
    wanted = torch.arange(1 << 20).view(1024, 1024)
    for source in ({first}, 1 - {first}):
        target = 1 - source
        tensor = wanted.to(f"cuda:{{source}}")
        copied = tensor.to(f"cuda:{{target}}")
        turned = tensor.t().to(f"cuda:{{target}}")         # a kernel reads or writes the other device's memory
        into = torch.empty_like(wanted, device=f"cuda:{{target}}")
        into.copy_(tensor, non_blocking=True)
        for device in (source, target):
            torch.cuda.synchronize(device)
        assert torch.equal(copied.cpu(), wanted), (source, "copied")
        assert torch.equal(turned.cpu(), wanted.t()), (source, "turned")
        assert torch.equal(into.cpu(), wanted), (source, "into")
"""


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "specification",
    ["cuda", "pool:initial=64MiB | cuda", "async", "async:peers=all", "async:peers=0,1", "pool:initial=64MiB | async"],
)
def test_tensors_are_copied_between_devices_in_both_directions(run: Run, specification: str, first: int) -> None:
    run(COPY.format(specification=specification, first=first))


def test_without_access_to_peers_a_copy_between_devices_fails(run: Run) -> None:
    """The control: the test above can fail."""
    run("""
        import cenote
        assert cenote.install("async:peers=none", frameworks="torch")
        import torch
        tensor = torch.arange(1000, device="cuda:1")
        try:
            copied = tensor.to("cuda:0")
            torch.cuda.synchronize(0)
            torch.cuda.synchronize(1)
        except RuntimeError as error:
            assert "invalid argument" in str(error) or "illegal" in str(error), error
        else:
            raise AssertionError("the copy was made")
    """)


def test_a_view_opens_the_drivers_default_pool_where_that_is_asked_for(run: Run) -> None:
    run("""
        import ctypes
        import cenote
        assert cenote.install("cuda", frameworks="torch")
        default, driver = ctypes.c_void_p(), ctypes.CDLL("libcuda.so.1")
        assert cenote.driver.device_count() > 1
        assert driver.cuDeviceGetDefaultMemPool(ctypes.byref(default), 0) == 0
        cenote.driver.set_device(0)
        cenote.install(cenote.mr.CudaAsyncViewMemoryResource(default.value, peers="all"), frameworks=())
        import torch
        tensor = torch.arange(1000, device="cuda:0")
        assert int(tensor.to("cuda:1").sum()) == 499500
        assert int(torch.ones(1000, device="cuda:1").to("cuda:0").sum()) == 1000
    """)


def test_a_pool_that_is_used_again_is_opened_and_closed_as_its_new_owner_says(run: Run) -> None:
    run("""
        import ctypes
        import cenote
        from cenote import mr
        driver = ctypes.CDLL("libcuda.so.1")
        cenote.driver.set_device(1)
        other = mr.CudaMemoryResource().allocate(256)
        cenote.driver.set_device(0)
        def copy_to_other(peers):
            pool = mr.CudaAsyncMemoryResource(peers=peers)
            block = pool.allocate(256)
            cenote.driver.synchronize(0)
            cenote.driver.set_device(1)
            answer = driver.cuMemcpyAsync(ctypes.c_void_p(other), ctypes.c_void_p(block), ctypes.c_size_t(256), None)
            cenote.driver.synchronize(1)
            cenote.driver.set_device(0)
            pool.deallocate(block, 256)
            return answer
        answers = [copy_to_other(peers) for peers in (None, "none", [1], [], "all")]
        assert [answer == 0 for answer in answers] == [True, False, True, False, True], answers
    """)


def test_statistics_and_logs_hold_for_a_device_that_is_chosen_later(run: Run, tmp_path) -> None:
    run(f"""
        import cenote
        assert cenote.install("pool:initial=64MiB | cuda", frameworks="torch")
        cenote.statistics.enable_statistics()
        cenote.enable_logging({str(tmp_path / "log.csv")!r})
        import torch
        torch.cuda.set_device(1)
        tensor = torch.ones(1000, device="cuda")
        assert cenote.statistics.get_statistics().current_bytes >= 4000
        assert cenote.get_log_filenames() == {{1: {str(tmp_path / "log.dev1.csv")!r}}}
    """)


def test_cupy_and_numba_use_each_devices_own_resource(run: Run) -> None:
    run("""
        import numpy as np
        import cenote
        report = cenote.install("pool:initial=64MiB | async", frameworks=("cupy", "numba"))
        assert report, report
        import cupy
        from numba import cuda
        arrays = []
        for device in (1, 0):
            with cupy.cuda.Device(device):
                arrays.append(cupy.arange(1000))
                cupy.cuda.Device().synchronize()
        with cupy.cuda.Device(0):
            copied = arrays[0].copy()                         # from device 1
            assert copied.device.id == 0 and int(copied.sum()) == 499500
        with cuda.gpus[1]:
            column = cuda.to_device(np.arange(1000))
            assert column.copy_to_host().sum() == 499500
        for device in (0, 1):
            found = cenote.registry.find_per_device_resource(device)
            assert found.specification == "pool:initial=64MiB | async"
        usage = cenote.usage()
        assert usage["cupy"].allocations >= 3 and usage["numba"].allocations >= 1, usage
    """)


@pytest.mark.alone  # is timed
def test_blocks_of_another_process_go_from_device_to_device() -> None:
    program = Path(__file__).with_name("peer_rates.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
