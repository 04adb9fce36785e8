"""Views of a DeviceBuffer's memory: the buffer protocol and the CUDA array interface."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cenote
from busy_stream import KEEP_BUSY
from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr, sim
from host_text import ADDRESS, TEXT


def test_cuda_array_interface_is_version_3() -> None:
    stream = Stream()
    buffer = DeviceBuffer(size=10, stream=stream)
    assert buffer.__cuda_array_interface__ == {
        "data": (buffer.ptr, False),
        "shape": (10,),
        "strides": None,
        "typestr": "|u1",
        "version": 3,
        "stream": stream.handle,
    }
    assert DeviceBuffer().__cuda_array_interface__["data"] == (0, False)
    assert DeviceBuffer(size=1).__cuda_array_interface__["stream"] == 1


HOST_ACCESSIBLE = ("managed", "pinned", "statistics | pool:initial=0 | pinned")


@pytest.fixture(params=HOST_ACCESSIBLE)
def reachable(request: pytest.FixtureRequest) -> DeviceBuffer:
    return DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=mr.from_spec(request.param))


def test_view_is_a_writable_row_of_bytes_in_the_same_memory(reachable: DeviceBuffer) -> None:
    view = memoryview(reachable)
    assert (view.format, view.itemsize, view.ndim, view.shape, view.strides, view.readonly, view.c_contiguous) == (
        *("B", 1, 1, (len(TEXT),), (1,), False, True),
    )
    view[:3] = b"THE"
    array = np.asarray(reachable)
    assert (array.dtype, array.shape, array.ctypes.data) == (np.uint8, (len(TEXT),), reachable.ptr)
    array[4:9] = list(b"WATER")
    assert reachable.tobytes() == bytes(view) == b"THE WATER" + TEXT[9:]
    assert np.frombuffer(reachable, "<u2", 4).ctypes.data == reachable.ptr
    assert reachable.__array__().ctypes.data == reachable.ptr
    assert reachable.__array__(copy=True).ctypes.data != reachable.ptr


def test_view_of_an_empty_buffer_is_empty() -> None:
    buffer = DeviceBuffer(mr=mr.PinnedHostMemoryResource())
    assert bytes(memoryview(buffer)) == b""
    assert np.asarray(buffer).shape == (0,)


@pytest.mark.parametrize("spec", HOST_ACCESSIBLE)
def test_view_shows_what_the_stream_leaves(spec: str) -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer = DeviceBuffer(size=len(TEXT), stream=stream, mr=mr.from_spec(spec))
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, stream)
    assert not stream.is_done()
    assert bytes(memoryview(buffer)) == TEXT


def test_memory_of_the_device_has_no_view() -> None:
    for buffer in (DeviceBuffer(size=10), DeviceBuffer()):
        with pytest.raises(BufferError, match=r"memory of device 0.*tobytes"):
            memoryview(buffer)
        with pytest.raises(TypeError, match=r"memory of device 0.*tobytes"):
            np.asarray(buffer)
        buffer.resize(20)


def test_memory_stays_where_it_is_while_it_is_seen(reachable: DeviceBuffer) -> None:
    view = memoryview(reachable)
    changes: list[Callable[[], Any]] = [
        lambda: reachable.resize(1000),
        lambda: reachable.resize(1),
        lambda: reachable.reserve(1000),
        lambda: reachable.shrink_to_fit(),
        lambda: reachable.close(),
        lambda: reachable.__init__(size=3),  # type: ignore[misc]
    ]
    for change in changes:
        with pytest.raises(BufferError, match="is alive"):
            change()
    assert (bytes(view), reachable.tobytes()) == (TEXT, TEXT)
    with pytest.raises(BufferError), reachable:
        pass
    view.release()
    for change in changes:
        change()


def test_memory_stays_where_it_is_for_a_view_made_while_it_is_replaced(reachable: DeviceBuffer) -> None:
    pinned = mr.PinnedHostMemoryResource()
    views = []

    def allocate(nbytes: int, stream: Stream) -> int:
        views.append(memoryview(reachable))
        return pinned.allocate(nbytes, stream)

    watched = mr.CallbackMemoryResource(allocate, pinned.deallocate)
    with pytest.raises(BufferError, match="is alive"):
        reachable.__init__(size=1000, mr=watched)  # type: ignore[misc]
    assert (bytes(views[0]), reachable.tobytes()) == (TEXT, TEXT)


def test_view_keeps_the_buffer_alive() -> None:
    before = sim.live().pinned_bytes
    view = memoryview(DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=mr.PinnedHostMemoryResource()))
    gc.collect()
    assert bytes(view) == TEXT
    del view
    assert sim.live().pinned_bytes == before


def test_view_that_failed_is_none(reachable: DeviceBuffer) -> None:
    with sim.failing("cuStreamSynchronize", error="CUDA_ERROR_UNKNOWN"), pytest.raises(cenote.CudaError):
        memoryview(reachable)
    reachable.resize(1000)


def test_buffers_that_the_host_reaches_are_sources_and_targets_of_copies(reachable: DeviceBuffer) -> None:
    assert DeviceBuffer.to_device(reachable).tobytes() == TEXT
    target = DeviceBuffer(size=len(TEXT))
    target.copy_from_host(reachable)
    assert target.tobytes() == TEXT
    other = DeviceBuffer(size=len(TEXT), mr=mr.PinnedHostMemoryResource())
    assert target.copy_to_host(other) is other
    assert bytes(memoryview(other)) == TEXT


VIEW_OF_A_BUSY_BUFFER = f"""{KEEP_BUSY}
stream = cenote.Stream()
buffer = cenote.DeviceBuffer(size=10, stream=stream, mr=mr.PinnedHostMemoryResource())
thread = keep_busy(stream)
view = memoryview(buffer)
thread.join()
print("seen")
"""


def test_a_view_that_waits_lets_other_threads_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", VIEW_OF_A_BUSY_BUFFER], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "seen\n", done.stderr
