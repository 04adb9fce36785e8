"""The life of a DeviceBuffer: what it keeps alive, when it is freed, and what a close leaves."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import cenote
from busy_stream import KEEP_BUSY
from cenote import DeviceBuffer, Stream, mr, sim
from host_text import ADDRESS, TEXT


def test_buffer_keeps_its_resource_and_its_stream_alive() -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), stream=Stream(), mr=mr.from_spec("pool:initial=1MiB"))
    gc.collect()
    assert buffer.tobytes(buffer.stream) == TEXT


def test_buffers_in_a_reference_cycle_are_freed() -> None:
    class Node:
        buffer: DeviceBuffer
        other: Node

    before = sim.live()
    for _ in range(10):
        one, two = Node(), Node()
        one.other, two.other = two, one
        one.buffer = DeviceBuffer(size=1000, stream=Stream(), mr=mr.from_spec("statistics | pool:initial=1MiB"))
        two.buffer = one.buffer.copy()
    del one, two
    gc.collect()
    after = sim.live()
    assert (after.device_bytes, after.allocations, after.streams) == (
        before.device_bytes,
        before.allocations,
        before.streams,
    )


def test_usage_counts_what_buffers_hold() -> None:
    gc.collect()
    before = cenote.usage()["cenote"]
    buffers = [DeviceBuffer(size=1000), DeviceBuffer(size=24), DeviceBuffer()]
    now = cenote.usage()["cenote"]
    assert (now.bytes - before.bytes, now.allocations - before.allocations) == (1024, 2)
    buffers[0].resize(2000)
    buffers[1].resize(1)
    now = cenote.usage()["cenote"]
    assert (now.bytes - before.bytes, now.allocations - before.allocations) == (2024, 2)
    buffers.clear()
    now = cenote.usage()["cenote"]
    assert (now.bytes, now.allocations) == (before.bytes, before.allocations)


def test_closed_buffer_is_empty_and_can_be_used_again(counted: mr.StatisticsResourceAdaptor) -> None:
    before, stream = cenote.usage()["cenote"].bytes, Stream()
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted, stream=stream)
    for _ in range(2):
        buffer.close()
        assert (buffer.ptr, buffer.size, len(buffer), buffer.capacity(), bytes(buffer)) == (0, 0, 0, 0, b"")
        assert (buffer.mr, buffer.stream) == (counted, stream)
        assert (counted.allocation_counts.current_bytes, cenote.usage()["cenote"].bytes - before) == (0, 0)
    buffer.resize(10, stream)
    assert (buffer.size, counted.allocation_counts.current_bytes, cenote.usage()["cenote"].bytes - before) == (10,) * 3


def test_buffer_is_closed_at_the_end_of_its_block(counted: mr.StatisticsResourceAdaptor) -> None:
    with DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted) as buffer:
        assert buffer.tobytes() == TEXT
    assert (buffer.ptr, buffer.size, counted.allocation_counts.current_bytes) == (0, 0, 0)
    with pytest.raises(ZeroDivisionError), DeviceBuffer(size=10, mr=counted):
        _ = 1 // 0
    assert counted.allocation_counts.current_bytes == 0


def test_closing_frees_in_the_order_of_the_stream() -> None:
    pool, stream = mr.from_spec("pool:initial=4KiB,max=4KiB | cuda"), Stream()
    source, target = DeviceBuffer.to_device(bytes(range(256)) * 16), DeviceBuffer(size=4096)
    buffer = DeviceBuffer(size=4096, stream=stream, mr=pool)
    buffer.copy_from_device(source, stream)
    target.copy_from_device(buffer, stream)
    buffer.close()
    with DeviceBuffer(size=4096, stream=stream, mr=pool) as other:
        other.copy_from_device(DeviceBuffer(size=4096), stream)
    assert target.tobytes(stream) == bytes(range(256)) * 16


def test_resource_that_the_program_holds_no_object_of_is_found_when_it_is_asked_for() -> None:
    before = mr.get_current_device_resource()
    try:
        mr.set_current_device_resource(mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB"))
        buffer = DeviceBuffer(size=100)
        assert isinstance(buffer.mr, mr.PoolMemoryResource)
        assert buffer.mr is buffer.mr
        assert buffer.mr == mr.get_current_device_resource()
        other = DeviceBuffer(size=100)
        assert other.mr is buffer.mr
    finally:
        mr.set_current_device_resource(before)


def test_buffer_is_the_last_to_hold_a_resource_that_nobody_names() -> None:
    before = mr.get_current_device_resource()
    allocations = sim.live().allocations
    mr.set_current_device_resource(mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB"))
    buffer = DeviceBuffer(size=100)
    mr.set_current_device_resource(before)
    assert sim.live().allocations == allocations + 1
    del buffer
    assert sim.live().allocations == allocations


POOL_REPLACED_UNDER_A_BUFFER = f"""{KEEP_BUSY}
pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")
for _ in range(4):  # so that the last free will be one at once
    buffer = cenote.DeviceBuffer(size=1000, mr=pool)
pool.__init__(mr.CudaMemoryResource(), "1MiB", "1MiB")
stream = cenote.Stream()
thread = keep_busy(stream)
del buffer
thread.join()
print("ended")
"""


def test_the_end_of_a_resource_that_was_made_anew_lets_other_threads_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", POOL_REPLACED_UNDER_A_BUFFER], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "ended\n", done.stderr


# Streams of others in garbage.


class Destroying:
    """A stream of somebody else's that its finalizer destroys, as CuPy's do."""

    def __init__(self) -> None:
        self.stream: Stream | None = Stream()
        self.handle = self.stream.handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def __del__(self) -> None:
        self.stream = None


class Finalized:
    """One that a callback of a weak reference destroys, as Numba's are."""

    def __init__(self) -> None:
        streams = [Stream()]
        self.handle = streams[0].handle
        weakref.finalize(self, streams.clear)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


@pytest.mark.parametrize("theirs", [Destroying, Finalized])
@pytest.mark.parametrize("wrapped", [lambda stream: stream, Stream, lambda stream: Stream(Stream(stream))])
@pytest.mark.parametrize("spec", ["statistics | pool:initial=1MiB | cuda", "statistics | async", "statistics | cuda"])
def test_buffer_in_garbage_with_a_stream_of_others_never_touches_its_dead_handle(
    theirs: Any, wrapped: Callable[[Any], Any], spec: str
) -> None:
    resource, streams = mr.from_spec(spec), sim.live().streams
    assert isinstance(resource, mr.StatisticsResourceAdaptor)
    stream = theirs()
    stream.buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), stream=wrapped(stream), mr=resource)
    del stream
    gc.collect()
    assert resource.allocation_counts.current_bytes == 0
    assert sim.live().streams <= streams + 1  # one that frees go through may be new
    assert sim.violations() == []
