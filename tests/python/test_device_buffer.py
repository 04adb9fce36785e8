"""DeviceBuffer: bytes on a device that free themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import DeviceBuffer, Stream, mr
from cenote.device_buffer import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host, to_device
from host_text import ADDRESS, TEXT


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


def test_repr_tells_size_address_and_device() -> None:
    buffer = DeviceBuffer(size=10)
    assert repr(buffer) == f"<cenote.DeviceBuffer of 10 bytes at {buffer.ptr:#x} on device 0>"


# Sizes.


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


def test_buffer_survives_a_resize_that_fails(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(ptr=ADDRESS, size=len(TEXT), mr=counted)
    for grow in (buffer.resize, buffer.reserve):
        with pytest.raises(cenote.OutOfMemoryError):
            grow(2**44)
        with pytest.raises(OverflowError):
            grow(-1)
    assert (buffer.size, buffer.capacity(), buffer.tobytes()) == (len(TEXT), len(TEXT), TEXT)


# Initialisers.


def test_second_init_does_not_leak(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = DeviceBuffer(size=1000, mr=counted)
    buffer.__init__(size=10, mr=counted)  # type: ignore[misc]
    assert counted.allocation_counts.current_bytes == 10
    del buffer
    assert counted.allocation_counts.current_bytes == 0


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


def test_buffer_that_was_never_made_does_no_harm() -> None:
    DeviceBuffer.__new__(DeviceBuffer)


def test_a_buffer_that_was_never_initialised_is_refused():
    with pytest.raises(RuntimeError, match="never initialised"):
        len(cenote.DeviceBuffer.__new__(cenote.DeviceBuffer))


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


# Prefetches.


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
