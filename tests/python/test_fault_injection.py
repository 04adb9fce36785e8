"""Every driver call of a workload fails once, in turn: a clear error or success, sound books, and the next try works.

What may stay behind is only what a failed free could not free; that is leaked rather than reused in doubt, and said
once on standard error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import cenote
from cenote import DeviceBuffer, Stream, mr, registry, sim

Resources = list[mr.DeviceMemoryResource]  # those that a workload has made so far, to be checked when it has failed

ERRORS = ("CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_LAUNCH_FAILED")
MIB = 1024**2


def buffers(made: Resources, _: Path) -> None:
    stream = Stream()
    buffer = DeviceBuffer.to_device(b"12345")
    buffer.resize(5000, stream)
    copied = buffer.copy()
    copied.copy_from_device(buffer, stream)
    assert copied.tobytes(stream)[:5] == b"12345"


def pool(made: Resources, _: Path) -> None:
    resource = mr.from_spec("pool:initial=1MiB,max=8MiB | cuda")
    made.append(resource)
    streams = [cenote.DEFAULT_STREAM, Stream(), Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)]
    buffers = [DeviceBuffer(size=size, stream=streams[size % 3], mr=resource) for size in (3, 700_000, 2 * MIB)]
    buffers.clear()
    for turn in range(6):
        buffers.append(DeviceBuffer(size=MIB, stream=streams[turn % 3], mr=resource))
    buffers.clear()
    large = DeviceBuffer(size=7 * MIB, stream=streams[1], mr=resource)
    del large
    resource.trim()
    resource.check()


def pool_of_managed_memory(made: Resources, _: Path) -> None:
    resource = mr.from_spec("pool:initial=0 | managed")
    made.append(resource)
    assert DeviceBuffer(size=100, mr=resource).size == 100


def driver_pool(made: Resources, _: Path) -> None:
    resource = mr.CudaAsyncMemoryResource(initial_pool_size="1MiB")
    made.append(resource)
    one, two = Stream(), Stream()
    buffer = DeviceBuffer(size=5000, stream=one, mr=resource)
    buffer.copy_from_host(b"12345", two)
    one.synchronize()
    assert buffer.tobytes(two)[:5] == b"12345"
    resource.state()
    del buffer
    resource.trim()


def managed_and_pinned(made: Resources, _: Path) -> None:
    for resource in (mr.ManagedMemoryResource(), mr.PinnedHostMemoryResource()):
        made.append(resource)
        buffer = DeviceBuffer(size=1000, stream=Stream(), mr=resource)
        buffer.copy_from_host(b"12345", buffer.stream)


def adaptors(made: Resources, folder: Path) -> None:
    resource = mr.from_spec(f"statistics | logging:file={folder}/log.csv | pool:initial=1MiB")
    made.append(resource)
    buffer = DeviceBuffer(size=1000, mr=resource)
    buffer.resize(2 * MIB)
    assert isinstance(resource, mr.StatisticsResourceAdaptor)
    assert resource.allocation_counts.current_bytes == 2 * MIB


def current_resource_and_clients(made: Resources, _: Path) -> None:
    resource = mr.from_spec("pool:initial=0")
    made.append(resource)
    previous = mr.set_current_device_resource(resource)
    try:
        client, one, two = registry.Client("unlucky"), Stream(), Stream()
        for freed_on in (one, two):
            address = client.allocate(1000, one)
            try:
                client.record_stream(address, two)
            finally:
                client.deallocate(address, freed_on)
    finally:
        while mr.get_per_device_resource(0) is resource:  # the one failure that is armed may be here
            try:
                mr.set_per_device_resource(0, previous)
            except cenote.CudaError:
                continue


def questions(made: Resources, _: Path) -> None:
    cenote.driver.version()
    for device in range(cenote.driver.device_count()):
        cenote.driver.device_name(device)
        cenote.driver.compute_capability(device)
        cenote.driver.memory_info(device)
        cenote.driver.synchronize(device)
    assert Stream().is_done()


WORKLOADS = (
    buffers,
    pool,
    pool_of_managed_memory,
    driver_pool,
    managed_and_pinned,
    adaptors,
    current_resource_and_clients,
    questions,
)

_reported: list[str] = []  # a text appears once in a process, so that what came earlier counts as well


def check(made: Resources) -> None:
    for resource in made:
        resource.check()


def finish_all_work() -> None:
    sim.drain()
    cenote.driver.synchronize(0)  # what is unused in the driver's pools goes back to the device


def left_over(before: sim.LiveObjects) -> dict[str, int]:
    finish_all_work()
    now = dataclasses.asdict(sim.live())
    return {name: now[name] - count for name, count in dataclasses.asdict(before).items() if now[name] != count}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_any_driver_call_may_fail(
    workload: Callable[[Resources, Path], None], error: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workload([], tmp_path)  # what is made once and kept
    finish_all_work()
    sim.reset_calls()
    workload([], tmp_path)
    calls = sim.calls()
    assert calls
    for name, count in calls.items():
        for nth in range(1, count + 1):
            where = f"{workload.__name__}: call {nth} of {count} to {name}"
            finish_all_work()
            before = sim.live()
            made: Resources = []
            with sim.failing(name, nth, error):
                try:
                    workload(made, tmp_path)
                except cenote.CudaError as failure:
                    assert (failure.call, failure.name) == (name, error), where
                except cenote.OutOfMemoryError as failure:
                    assert error == "CUDA_ERROR_OUT_OF_MEMORY", where
                    assert failure.requested > 0 and "requested from" in str(failure), where
            check(made)
            made.clear()
            workload([], tmp_path)
            _reported.append(capfd.readouterr().err)
            leaked = left_over(before)
            if leaked:
                assert f"{name} failed: {error}" in "".join(_reported), f"{where}: {leaked} leaked in silence"
                assert all(0 < leaked.get(what, 1) <= 1 for what in ("allocations", "pools", "streams", "events")), (
                    f"{where}: {leaked}"
                )
    assert sim.violations() == []


@pytest.mark.parametrize(
    "name", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxGetCurrent"]
)
def test_first_use_of_the_driver_may_fail(name: str, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(f"""
        import cenote
        from cenote import sim
        sim.fail({name!r}, error="CUDA_ERROR_SYSTEM_NOT_READY")
        def use():
            assert cenote.DeviceBuffer.to_device(b"12345").tobytes() == b"12345"
        try:
            use()
        except cenote.CudaError as error:
            assert "CUDA_ERROR_SYSTEM_NOT_READY" in str(error) and {name!r} in str(error), error
        else:
            raise AssertionError("the failure went unnoticed")
        if {name!r} != "cuInit":  # a driver that would not start is not tried again
            use()
        else:
            try:
                use()
            except cenote.DriverUnavailableError as error:
                assert "CENOTE_SIM describes" in str(error)
            else:
                raise AssertionError
    """)
