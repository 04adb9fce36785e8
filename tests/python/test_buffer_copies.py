"""Copies into and out of a DeviceBuffer: between it and the host, other arrays, and addresses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr, sim
from cenote.device_buffer import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host, to_device
from host_text import ADDRESS, HOST, TEXT


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
