"""DeviceBuffer: bytes on a device that free themselves."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import DeviceBuffer, Stream, mr, sim

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


@pytest.mark.parametrize("size", [-1, 2**64])
def test_size_that_is_no_size_is_an_overflow(size: int) -> None:
    with pytest.raises(OverflowError):
        DeviceBuffer(size=size)


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
    ):
        with pytest.raises(TypeError, match="DEFAULT_STREAM"):
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
