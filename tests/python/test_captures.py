"""What Python is asked beside a capture ends none; the table of all resources is in C++ (beside_a_capture_test)."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cenote
from cenote import CudaStreamFlags, DeviceBuffer, Stream, driver, mr, sim, statistics

SIMULATED_DRIVER = ctypes.CDLL(str(Path(driver.__file__).parent / "lib" / "libcenote_sim.so"))
MODES = {"global": 0, "thread-local": 1, "relaxed": 2}
STACKS = ["cuda", "async", "async_managed", "pool:initial=4MiB | cuda", "statistics | pool:initial=4MiB | async"]


def use_a_buffer(stream: Stream) -> None:
    buffer = DeviceBuffer.to_device(b"x" * 5000, stream)
    assert buffer.tobytes(stream) == bytes(buffer) == b"x" * 5000
    buffer.resize(10_000, stream)
    buffer.shrink_to_fit(stream)
    other = buffer.copy()
    other.copy_from_host(b"y" * 5000, stream)
    other.copy_from_device(buffer, stream)
    assert other.copy_to_host(stream=stream).tobytes()[:5000] == b"x" * 5000
    other.close()


def use_a_resource(stream: Stream) -> None:
    resource = mr.get_current_device_resource()
    resource.deallocate(resource.allocate(1000, stream), 1000, stream)
    resource.state()
    resource.check()
    str(resource)


def run_out(stream: Stream) -> None:
    with pytest.raises(MemoryError):
        mr.get_current_device_resource().allocate(1 << 50, stream)


def look_around(stream: Stream) -> None:
    cenote.usage()
    driver.device_count()
    driver.device_properties(0)
    driver.memory_info(0)
    assert stream.is_done()
    stream.synchronize()


def count(stream: Stream) -> None:
    with statistics.statistics(), statistics.profiler(name="beside a capture"):
        DeviceBuffer(size=1000, stream=stream)


CALLS: dict[str, Callable[[Stream], None]] = {
    "a buffer": use_a_buffer,
    "a resource": use_a_resource,
    "looking around": look_around,
    "counting": count,
    "a stream": lambda _: Stream().synchronize(),
}
# A pool needs an event over all work for these, which ends a capture that is not known of.
CALLS_OF_POOLS: dict[str, Callable[[Stream], None]] = {
    "running out": run_out,
    "trimming": lambda _: mr.get_current_device_resource().trim(),
    "making and dropping": lambda _: [mr.from_spec(stack) for stack in STACKS].clear(),
    "replacing": lambda _: cenote.reinitialize(pool_allocator=True, initial_pool_size="4MiB"),
}


@pytest.fixture(params=STACKS)
def current(request: pytest.FixtureRequest) -> Iterator[None]:
    mr.set_current_device_resource(mr.from_spec(request.param))
    yield
    gc.collect()


def ends_as(flags: CudaStreamFlags, mode: int, call: Callable[[Stream], None]) -> tuple[int, list[BaseException]]:
    """Makes the call on another thread while a stream captures: how the capture ended, and what was raised."""
    captured, side = Stream(flags=flags), Stream(flags=CudaStreamFlags.NON_BLOCKING)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call(side)
        except BaseException as error:
            raised.append(error)

    assert SIMULATED_DRIVER.cuStreamBeginCapture_v2(ctypes.c_void_p(captured.handle), mode) == 0
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    graph = ctypes.c_void_p()
    ended = SIMULATED_DRIVER.cuStreamEndCapture(ctypes.c_void_p(captured.handle), ctypes.byref(graph))
    if graph:
        SIMULATED_DRIVER.cuGraphDestroy(graph)
    return ended, raised


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_a_capture_stays_valid(name: str, mode: str) -> None:
    for flags in CudaStreamFlags:
        assert ends_as(flags, MODES[mode], CALLS[name]) == (0, []), flags


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS_OF_POOLS)
def test_a_capture_of_a_blocking_stream_stays_valid_beside_what_needs_all_work(name: str, mode: str) -> None:
    assert ends_as(CudaStreamFlags.SYNC_DEFAULT, MODES[mode], CALLS_OF_POOLS[name]) == (0, [])


@pytest.mark.parametrize("specification", ["async", "async_managed"])
def test_what_a_drivers_pool_gives_without_all_work_leaves_every_capture_valid(specification: str) -> None:
    mr.set_current_device_resource(mr.from_spec(specification))
    for call in (CALLS_OF_POOLS["running out"], CALLS_OF_POOLS["trimming"], lambda _: mr.from_spec(specification)):
        assert ends_as(CudaStreamFlags.NON_BLOCKING, MODES["global"], call) == (0, [])


def test_an_error_that_ended_a_capture_says_how_to_announce_it() -> None:
    mr.set_current_device_resource(mr.from_spec("pool:initial=4MiB,max=4MiB | cuda"))
    resource, stream = mr.get_current_device_resource(), Stream(flags=CudaStreamFlags.NON_BLOCKING)
    resource.deallocate(resource.allocate(1 << 20, stream), 1 << 20, stream)
    ended, raised = ends_as(CudaStreamFlags.NON_BLOCKING, MODES["relaxed"], lambda _: resource.trim())
    assert ended != 0
    assert "call cenote_capture_begin and cenote_capture_end around it" in str(raised[0])
    sim.clear_violations()


@pytest.mark.parametrize("specification", ["cuda", "async", "pool:initial=0 | cuda"])
def test_memory_of_an_async_resource_that_is_gone_is_there_for_the_next(specification: str) -> None:
    size = driver.memory_info(0)[0] // 4 * 3 & ~0x1FFFFF
    mr.set_current_device_resource(mr.CudaAsyncMemoryResource())
    for stream in (Stream(flags=CudaStreamFlags.NON_BLOCKING), cenote.LEGACY_DEFAULT_STREAM):
        buffer = DeviceBuffer(size=size, stream=stream)
        buffer.copy_from_host(b"x" * 100, stream)
        del buffer
        mr.set_current_device_resource(mr.from_spec(specification))
        DeviceBuffer(size=size, stream=stream).close()
        sim.drain()
        mr.set_current_device_resource(mr.CudaAsyncMemoryResource())


def test_reinitialize_has_the_memory_that_the_resource_before_does_not_use() -> None:
    size = driver.memory_info(0)[0] // 4 * 3 & ~0x1FFFFF
    mr.set_current_device_resource(mr.CudaAsyncMemoryResource())
    DeviceBuffer(size=size).close()
    cenote.reinitialize(pool_allocator=True, initial_pool_size=size)
