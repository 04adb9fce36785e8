"""DeviceBuffer: bytes on a device that free themselves."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

import cenote
from busy_stream import KEEP_BUSY
from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr, sim
from cenote.device_buffer import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host, to_device

TEXT = b"the water is the same"
HOST = np.frombuffer(TEXT, dtype="u1")
ADDRESS = int(HOST.ctypes.data)


@pytest.fixture
def counted() -> mr.StatisticsResourceAdaptor:
    return mr.StatisticsResourceAdaptor(mr.from_spec("pool:initial=0 | cuda"))


@pytest.mark.parametrize("own_stream", [False, True])
@pytest.mark.parametrize("own_resource", [False, True])
@pytest.mark.parametrize("source", [None, "host", "device"])
@pytest.mark.parametrize("size", [0, len(TEXT)])
def test_constructor_makes_what_it_was_told(
    size: int, source: str | None, own_resource: bool, own_stream: bool, counted: mr.StatisticsResourceAdaptor
) -> None:
    original = DeviceBuffer.to_device(TEXT)
    given: dict[str, Any] = {"size": size}
    if source is not None:
        given["ptr"] = ADDRESS if source == "host" else original.ptr
    if own_resource:
        given["mr"] = counted
    if own_stream:
        given["stream"] = Stream()
    buffer = DeviceBuffer(**given)
    assert buffer.size == buffer.nbytes == len(buffer) == buffer.capacity() == size
    assert sys.getsizeof(buffer) >= size
    assert (buffer.ptr == 0) == (size == 0)
    assert buffer.mr is (counted if own_resource else mr.get_current_device_resource())
    assert buffer.stream == given.get("stream", cenote.DEFAULT_STREAM)
    assert counted.allocation_counts.current_bytes == (size if own_resource else 0)
    if source is not None:
        assert buffer.tobytes(buffer.stream) == TEXT[:size]


def test_arguments_are_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        DeviceBuffer(0, 10)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (-1, OverflowError),
        (2**64, OverflowError),
        (1.5, TypeError),
        (float("nan"), TypeError),
        ("8", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_size_or_address_is_refused(number: Any, error: type[Exception]) -> None:
    buffer = DeviceBuffer.to_device(TEXT)
    for wrong in (
        lambda: DeviceBuffer(size=number),
        lambda: DeviceBuffer(ptr=number, size=1),
        lambda: buffer.resize(number),
        lambda: buffer.reserve(number),
        lambda: copy_ptr_to_host(number, bytearray(3)),
        lambda: copy_host_to_ptr(TEXT, number),
        lambda: copy_device_to_ptr(number, buffer.ptr, 1),
        lambda: copy_device_to_ptr(buffer.ptr, number, 1),
        lambda: copy_device_to_ptr(buffer.ptr, buffer.ptr, number),
    ):
        with pytest.raises(error):
            wrong()
    assert (buffer.size, buffer.capacity(), buffer.tobytes()) == (len(TEXT), len(TEXT), TEXT)


@pytest.mark.parametrize("size", [2**63, 2**64 - 256, 2**64 - 1])
def test_size_near_the_end_of_the_numbers_does_not_wrap(size: int) -> None:
    buffer = DeviceBuffer.to_device(TEXT)
    for wrong in (lambda: DeviceBuffer(size=size), lambda: buffer.resize(size), lambda: buffer.reserve(size)):
        with pytest.raises(MemoryError):
            wrong()
    assert buffer.tobytes() == TEXT


def test_size_that_no_device_has_is_out_of_memory_and_takes_nothing() -> None:
    before = cenote.usage()["cenote"]
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        DeviceBuffer(size=2**44)
    assert caught.value.requested == 2**44
    assert cenote.usage()["cenote"] == before


@pytest.mark.parametrize("wrong", ["cuda", 0, object()])
def test_what_is_no_resource_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=type(wrong).__name__):
        DeviceBuffer(size=1, mr=wrong)


def test_none_is_no_stream() -> None:
    nothing: Any = None
    buffer = DeviceBuffer.to_device(TEXT)
    for wrong in (
        lambda: DeviceBuffer(size=1, stream=nothing),
        lambda: DeviceBuffer.to_device(TEXT, nothing),
        lambda: buffer.copy_to_host(stream=nothing),
        lambda: buffer.copy_from_host(TEXT, nothing),
        lambda: buffer.copy_from_device(buffer, nothing),
        lambda: buffer.tobytes(nothing),
        lambda: buffer.resize(1, nothing),
        lambda: buffer.reserve(100, nothing),
        lambda: buffer.shrink_to_fit(nothing),
        lambda: to_device(TEXT, nothing),
        lambda: copy_ptr_to_host(buffer.ptr, bytearray(3), nothing),
        lambda: copy_host_to_ptr(TEXT, buffer.ptr, nothing),
        lambda: copy_device_to_ptr(buffer.ptr, buffer.ptr, 3, nothing),
    ):
        with pytest.raises(TypeError, match=r"stream argument cannot be None.*DEFAULT_STREAM"):
            wrong()
    assert buffer.tobytes() == TEXT


@pytest.mark.parametrize("data", [TEXT, bytearray(TEXT), memoryview(TEXT), HOST, b""])
def test_bytes_of_any_buffer_go_to_the_device_and_back(data: Any) -> None:
    buffer = DeviceBuffer.to_device(data)
    assert bytes(buffer) == buffer.tobytes() == buffer.copy_to_host().tobytes() == bytes(data)
    assert buffer.copy_to_host().shape == (len(data),)


@pytest.mark.parametrize("data", [None, "text", np.zeros(4), np.zeros((2, 2), "u1"), np.zeros(8, "u1")[::2]])
def test_what_is_no_contiguous_bytes_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError, BufferError)):
        DeviceBuffer.to_device(data)
    with pytest.raises((TypeError, ValueError, BufferError)):
        DeviceBuffer(size=100).copy_from_host(data)


def test_copy_to_host_fills_what_is_given_and_leaves_the_rest() -> None:
    target = np.full(len(TEXT) + 3, 9, dtype="u1")
    returned = DeviceBuffer.to_device(TEXT).copy_to_host(target)
    assert returned is target
    assert target.tobytes() == TEXT + b"\x09\x09\x09"


def test_bytes_of_a_buffer_are_those_that_its_own_stream_leaves() -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer = DeviceBuffer(size=len(TEXT), stream=stream)
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, stream)
    assert sim.pending() > 0
    assert bytes(buffer) == TEXT


def test_host_array_that_is_too_small_is_refused() -> None:
    buffer = DeviceBuffer.to_device(TEXT)
    with pytest.raises(ValueError, match=f"Need space for {len(TEXT)} bytes, not 20"):
        buffer.copy_to_host(np.zeros(20, "u1"))


def test_host_array_that_cannot_be_written_is_refused() -> None:
    with pytest.raises((TypeError, ValueError, BufferError)):
        DeviceBuffer.to_device(TEXT).copy_to_host(TEXT)


def test_copies_overwrite_the_first_bytes() -> None:
    buffer = DeviceBuffer.to_device(TEXT)
    buffer.copy_from_host(b"THE")
    assert buffer.tobytes() == b"THE" + TEXT[3:]
    buffer.copy_from_device(DeviceBuffer.to_device(b"any"))
    assert buffer.tobytes() == b"any" + TEXT[3:]
    buffer.copy_from_host(b"")
    buffer.copy_from_device(DeviceBuffer())
    assert buffer.tobytes() == b"any" + TEXT[3:]


def test_source_that_is_larger_than_the_buffer_is_refused() -> None:
    buffer = DeviceBuffer.to_device(b"1234")
    with pytest.raises(ValueError, match="5 bytes do not fit into a buffer of 4"):
        buffer.copy_from_host(b"12345")
    with pytest.raises(ValueError, match="5 bytes do not fit into a buffer of 4"):
        buffer.copy_from_device(DeviceBuffer(size=5))
    assert buffer.tobytes() == b"1234"


class Array:
    """What CuPy, PyTorch and Numba arrays look like to others."""

    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = {"version": 3, "strides": None, **interface}


def test_arrays_of_other_libraries_are_copied_from() -> None:
    source = DeviceBuffer.to_device(bytes(range(24)))
    buffer = DeviceBuffer(size=24)
    buffer.copy_from_device(Array(data=(source.ptr, True), shape=(3,), typestr="<f8"))
    assert buffer.tobytes() == bytes(range(24))
    buffer.copy_from_device(Array(data=(source.ptr + 8, False), shape=(2,), typestr="<i4", strides=(4,)))
    assert buffer.tobytes() == bytes(range(8, 16)) + bytes(range(8, 24))
    buffer.copy_from_device(Array(data=(source.ptr + 1, False), shape=(), typestr="|u1"))
    assert buffer.tobytes()[0] == 1


@pytest.mark.parametrize(
    "interface",
    [
        {"shape": (2, 2), "typestr": "|u1"},
        {"shape": (4,), "typestr": "|u1", "strides": (2,)},
        {"shape": (2,), "typestr": "<f8", "strides": (16,)},
        {"shape": (2,), "typestr": "<f8", "strides": (-8,)},
    ],
)
def test_array_that_is_not_one_contiguous_row_is_refused(interface: dict[str, Any]) -> None:
    source, buffer = DeviceBuffer(size=64), DeviceBuffer(size=64)
    with pytest.raises(ValueError, match="one-dimensional contiguous"):
        buffer.copy_from_device(Array(data=(source.ptr, False), **interface))


def test_array_of_the_host_is_refused() -> None:
    with pytest.raises(ValueError, match="ndarray"):
        DeviceBuffer(size=64).copy_from_device(HOST)


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


@pytest.mark.parametrize("duplicate", [copy.copy, DeviceBuffer.copy])
def test_copy_is_a_buffer_of_its_own_from_the_same_place(
    duplicate: Callable[[DeviceBuffer], DeviceBuffer], counted: mr.StatisticsResourceAdaptor
) -> None:
    stream = Stream()
    original = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), stream=stream, mr=counted)
    copied = duplicate(original)
    assert (copied.stream, copied.mr, copied.size) == (stream, counted, len(TEXT))
    assert copied.ptr != original.ptr
    original.copy_from_host(b"THE", stream)
    assert copied.tobytes(stream) == TEXT


def test_growing_keeps_the_contents(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted)
    buffer.resize(5000)
    assert (buffer.size, buffer.capacity()) == (5000, 5000)
    assert buffer.tobytes()[: len(TEXT)] == TEXT
    assert counted.allocation_counts.current_bytes == 5000


def test_shrinking_keeps_the_memory_and_reserving_the_size(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted)
    where = buffer.ptr
    buffer.resize(3)
    assert (buffer.ptr, buffer.size, buffer.capacity(), buffer.tobytes()) == (where, 3, len(TEXT), TEXT[:3])
    buffer.resize(len(TEXT))
    assert (buffer.ptr, buffer.tobytes()) == (where, TEXT)
    buffer.reserve(1000)
    assert (buffer.size, buffer.capacity(), buffer.tobytes()) == (len(TEXT), 1000, TEXT)
    buffer.reserve(1)
    assert buffer.capacity() == 1000


def test_buffer_survives_a_resize_that_fails(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted)
    for grow in (buffer.resize, buffer.reserve):
        with pytest.raises(cenote.OutOfMemoryError):
            grow(2**44)
        with pytest.raises(OverflowError):
            grow(-1)
    assert (buffer.size, buffer.capacity(), buffer.tobytes()) == (len(TEXT), len(TEXT), TEXT)


def test_on_the_default_stream_a_copy_is_finished_on_return() -> None:
    source = DeviceBuffer.to_device(TEXT)
    target = DeviceBuffer(ptr=source.ptr, size=source.size)
    assert sim.pending() == 0
    target.copy_from_device(source)
    assert sim.pending() == 0


def test_on_another_stream_a_copy_is_queued() -> None:
    stream = Stream()
    source = DeviceBuffer.to_device(TEXT)
    target = DeviceBuffer(size=source.size, stream=stream)
    target.copy_from_device(source, stream)
    assert sim.pending() > 0
    assert target.tobytes(stream) == TEXT


def test_buffer_remembers_the_stream_that_used_it_last() -> None:
    buffer, stream = DeviceBuffer.to_device(TEXT), Stream()
    buffer.copy_to_host(stream=stream)
    assert buffer.stream == stream
    buffer.resize(1, cenote.DEFAULT_STREAM)
    assert buffer.stream == cenote.DEFAULT_STREAM


def test_current_device_does_not_matter(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    elsewhere = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=mr.CudaMemoryResource())
    with on_device(1):
        there = DeviceBuffer.to_device(TEXT)
        assert (elsewhere.device, there.device, there.mr.device) == (0, 1, 1)
        assert elsewhere.tobytes() == TEXT
        elsewhere.resize(1000)
        del elsewhere
    assert there.tobytes() == TEXT
    there.resize(1000)
    assert there.device == 1
    there.copy_from_host(b"THE")
    assert there.copy().tobytes()[:3] == b"THE"


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


def test_repr_tells_size_address_and_device() -> None:
    buffer = DeviceBuffer(size=10)
    assert repr(buffer) == f"<cenote.DeviceBuffer of 10 bytes at {buffer.ptr:#x} on device 0>"


def test_second_init_does_not_leak(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(size=1000, mr=counted)
    buffer.__init__(size=10, mr=counted)  # type: ignore[misc]
    assert counted.allocation_counts.current_bytes == 10
    del buffer
    assert counted.allocation_counts.current_bytes == 0


def test_buffer_that_was_never_made_does_no_harm() -> None:
    DeviceBuffer.__new__(DeviceBuffer)


def test_a_buffer_that_was_never_initialised_is_refused():
    with pytest.raises(RuntimeError, match="never initialised"):
        len(cenote.DeviceBuffer.__new__(cenote.DeviceBuffer))


def test_a_copy_waits_for_the_stream_that_its_source_names() -> None:
    written_on, copied_on = Stream(), Stream()
    source = DeviceBuffer(size=len(TEXT), stream=written_on)
    source.copy_from_host(TEXT, written_on)
    target = DeviceBuffer(size=len(TEXT), stream=copied_on)
    target.copy_from_device(source, copied_on)
    assert target.tobytes(copied_on) == TEXT


@pytest.mark.parametrize("shape", [(-1,), (2, 3)])
def test_a_shape_that_is_no_row_of_bytes_is_refused(shape: tuple[int, ...]) -> None:
    class Array:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"data": (0, False), "shape": shape, "typestr": "|u1", "version": 3}

    with pytest.raises(ValueError, match="one-dimensional"):
        DeviceBuffer(size=10).copy_from_device(Array())


def test_masked_arrays_are_refused() -> None:
    source = DeviceBuffer(size=4)
    with pytest.raises(ValueError, match="mask"):
        DeviceBuffer(size=4).copy_from_device(Array(data=(source.ptr, False), shape=(4,), typestr="|u1", mask=source))


# The functions of the module.


def test_functions_copy_between_addresses_and_the_host() -> None:
    buffer, other, host = to_device(TEXT), DeviceBuffer(size=len(TEXT)), bytearray(3)
    assert type(buffer) is DeviceBuffer and buffer.tobytes() == TEXT
    copy_ptr_to_host(buffer.ptr, host)
    assert host == TEXT[:3]
    copy_host_to_ptr(b"THE", buffer.ptr)
    assert buffer.tobytes() == b"THE" + TEXT[3:]
    copy_device_to_ptr(buffer.ptr, other.ptr, len(TEXT))
    assert other.tobytes() == b"THE" + TEXT[3:]
    copy_ptr_to_host(buffer.ptr, bytearray())
    copy_host_to_ptr(b"", buffer.ptr)
    copy_device_to_ptr(buffer.ptr, other.ptr, 0)
    assert (buffer.tobytes(), other.tobytes()) == (b"THE" + TEXT[3:],) * 2


def test_functions_finish_host_copies_on_the_default_stream_and_queue_all_others() -> None:
    buffer, other, stream = DeviceBuffer(size=8), DeviceBuffer(size=8), Stream()
    copy_host_to_ptr(b"12345678", buffer.ptr)
    assert sim.pending() == 0
    copy_device_to_ptr(buffer.ptr, other.ptr, 8)
    assert sim.pending() > 0
    copy_host_to_ptr(b"abcdefgh", buffer.ptr, stream)
    assert not stream.is_done()
    stream.synchronize()
    assert buffer.tobytes() == b"abcdefgh"


def test_functions_refuse_none_and_report_what_the_driver_says() -> None:
    nothing: Any = None
    buffer = DeviceBuffer.to_device(TEXT)
    for wrong in (
        lambda: to_device(nothing),
        lambda: copy_ptr_to_host(buffer.ptr, nothing),
        lambda: copy_host_to_ptr(nothing, buffer.ptr),
    ):
        with pytest.raises(TypeError):
            wrong()
    for failing in (
        lambda: copy_ptr_to_host(buffer.ptr, bytearray(3)),
        lambda: copy_host_to_ptr(b"THE", buffer.ptr),
        lambda: copy_device_to_ptr(buffer.ptr, buffer.ptr, 3),
        lambda: buffer.copy_to_host(),
        lambda: buffer.copy_from_host(b"THE"),
        lambda: buffer.copy_from_device(DeviceBuffer(size=3)),
        lambda: buffer.tobytes(),
        lambda: buffer.resize(1000),
        lambda: DeviceBuffer(ptr=ADDRESS, size=3),
    ):
        with sim.failing("cuMemcpyAsync", error="CUDA_ERROR_UNKNOWN"), pytest.raises(cenote.CudaError) as caught:
            failing()
        assert isinstance(caught.value, RuntimeError) and caught.value.name == "CUDA_ERROR_UNKNOWN"
    assert buffer.tobytes() == TEXT


# Sizes and the end.


def test_shrinking_to_fit_gives_memory_back(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted)
    buffer.shrink_to_fit()
    assert counted.allocation_counts.total_count == 1
    buffer.resize(3)
    assert counted.allocation_counts.current_bytes == len(TEXT)
    stream = Stream()
    buffer.shrink_to_fit(stream)
    assert (buffer.capacity(), buffer.stream, buffer.tobytes(stream)) == (3, stream, TEXT[:3])
    assert counted.allocation_counts.current_bytes == 3
    buffer.resize(0, stream)
    buffer.shrink_to_fit(stream)
    assert (buffer.capacity(), buffer.ptr, counted.allocation_counts.current_bytes) == (0, 0, 0)


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


@pytest.mark.parametrize("device", [None, 0, 1, -1])
@pytest.mark.parametrize(
    ("spec", "moves"), [("managed", 1), ("pool:initial=0 | managed", 1), ("cuda", 0), ("pinned", 0)]
)
def test_prefetch_moves_what_can_move(spec: str, moves: int, device: int | None) -> None:
    own, other = Stream(), Stream()
    buffer = DeviceBuffer(size=1000, mr=mr.from_spec(spec), stream=own)
    buffer.prefetch(device)
    assert (own.is_done(), other.is_done()) == (not moves, True)
    fresh = DeviceBuffer(size=1000, mr=mr.from_spec(spec), stream=other)
    fresh.prefetch(device=device, stream=other)
    assert other.is_done() == (not moves)
    buffer.prefetch(device=device, stream=other)
    assert buffer.stream == other
    DeviceBuffer(mr=mr.from_spec(spec)).prefetch()


@pytest.mark.parametrize(
    ("device", "error"),
    [(2, IndexError), (-2, IndexError), (2**31, IndexError), (0.5, TypeError), ("cpu", TypeError)],
)
def test_prefetch_to_what_is_no_device_is_refused(device: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        DeviceBuffer(size=10, mr=mr.ManagedMemoryResource()).prefetch(device)


# The buffer protocol.

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


def test_buffer_may_be_initialised_while_it_is_initialised() -> None:
    pinned = mr.PinnedHostMemoryResource()
    pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")
    buffer = DeviceBuffer.__new__(DeviceBuffer)

    def allocate(nbytes: int, stream: Stream) -> int:
        buffer.__init__(size=1000, mr=pool)  # type: ignore[misc]
        return pinned.allocate(nbytes, stream)

    before = cenote.usage()["cenote"].bytes
    buffer.__init__(size=10, mr=mr.CallbackMemoryResource(allocate, pinned.deallocate))  # type: ignore[misc]
    assert (buffer.size, pool.in_use(), cenote.usage()["cenote"].bytes) == (10, 0, before + 10)


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


# Pickling.


class Named(DeviceBuffer):
    """A subclass as others write them: another interface, and an attribute."""

    name = "nobody"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {**super().__cuda_array_interface__, "version": 0}
        del interface["stream"]
        return interface


@pytest.mark.parametrize("data", [b"", TEXT])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_buffer_comes_back_with_its_bytes(protocol: int, data: bytes) -> None:
    again = pickle.loads(pickle.dumps(DeviceBuffer.to_device(data), protocol))
    assert type(again) is DeviceBuffer
    assert (again.tobytes(), again.mr) == (data, mr.get_current_device_resource())


@pytest.mark.parametrize("data", [b"", TEXT])
def test_protocol_5_gives_the_bytes_out_of_band_at_once(data: bytes) -> None:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(DeviceBuffer.to_device(data), protocol=5, buffer_callback=buffers.append)
    assert [type(buffer) for buffer in buffers] == [pickle.PickleBuffer]
    assert bytes(buffers[0]) == data
    assert data == b"" or data not in pickled
    assert pickle.loads(pickled, buffers=buffers).tobytes() == data


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickling_waits_for_the_own_stream_of_the_buffer(protocol: int) -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer = DeviceBuffer(size=len(TEXT), stream=stream)
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, stream)
    assert not stream.is_done()
    assert pickle.loads(pickle.dumps(buffer, protocol)).tobytes() == TEXT


def test_unpickled_buffer_is_of_the_current_resource(counted: mr.StatisticsResourceAdaptor) -> None:
    pickled = pickle.dumps(DeviceBuffer.to_device(TEXT))
    mr.set_current_device_resource(counted)
    assert pickle.loads(pickled).mr is counted


# Subclasses.


def test_buffers_made_of_a_subclass_are_of_that_subclass() -> None:
    buffer = Named.to_device(TEXT)
    buffer.name = "Zeno"
    for made in (buffer, buffer.copy(), copy.copy(buffer), copy.deepcopy(buffer)):
        assert (type(made), made.tobytes()) == (Named, TEXT)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(buffer, protocol))
        assert (type(again), again.name, again.tobytes()) == (Named, "Zeno", TEXT)


class Filled(DeviceBuffer):
    """Has an initialiser of its own."""

    def __init__(self, text: str) -> None:
        source = np.frombuffer(text.encode(), "u1")
        super().__init__(ptr=source.ctypes.data, size=source.size)


def test_buffers_of_a_class_with_an_initialiser_of_its_own_can_be_copied_and_pickled() -> None:
    buffer = Filled("text")
    for again in (buffer.copy(), copy.copy(buffer), copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
        assert type(again) is Filled
        assert again.ptr != buffer.ptr
        assert again.tobytes() == b"text"


def test_subclass_may_show_another_interface_and_loses_no_order() -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    source = Named(size=len(TEXT), stream=stream)
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    source.copy_from_device(queued, stream)
    assert set(source.__cuda_array_interface__) == {"data", "shape", "strides", "typestr", "version"}
    target = DeviceBuffer(size=len(TEXT))
    target.copy_from_device(source)
    assert target.tobytes() == TEXT


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


def test_class_takes_its_arguments_as_any_class_does() -> None:
    stream, pool = cenote.Stream(), mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
    source = np.arange(10, dtype="u1")
    made = DeviceBuffer(**{"si" + "ze": 10}, mr=pool, stream=stream)
    assert (made.size, made.stream, made.mr) == (10, stream, pool)
    assert DeviceBuffer(ptr=source.ctypes.data, size=10).tobytes() == source.tobytes()
    assert DeviceBuffer().size == 0
    for arguments, named in (((1,), {}), ((), {"bytes": 1}), ((10,), {"size": 1})):
        with pytest.raises(TypeError, match=r"__init__|argument"):
            DeviceBuffer(*arguments, **named)


def test_derived_class_has_its_own_init() -> None:
    class Counted(DeviceBuffer):
        def __init__(self, count: int) -> None:
            super().__init__(size=8 * count)

    assert Counted(3).size == 24
    with pytest.raises(TypeError):
        Counted(size=24)  # type: ignore[call-arg]


def test_init_that_fails_leaves_the_buffer_as_it_was() -> None:
    buffer = DeviceBuffer.to_device(b"contents")
    with pytest.raises(MemoryError):
        buffer.__init__(size=2**60)  # type: ignore[misc]
    assert buffer.tobytes() == b"contents"
    fresh = DeviceBuffer.__new__(DeviceBuffer)
    with pytest.raises(MemoryError):
        fresh.__init__(size=2**60)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="never initialised"):
        fresh.size  # noqa: B018
