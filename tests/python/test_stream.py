"""Streams: ours, and anyone else's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

import cenote
from cenote import CudaStreamFlags, CudaStreamPool, Stream, sim
from cenote.device_buffer import copy_device_to_ptr


def test_each_new_stream_is_another() -> None:
    one, two = Stream(), Stream()
    assert one.handle != two.handle
    assert one != two
    assert len({one, two, Stream(one), Stream(one.handle)}) == 2


def test_stream_of_a_stream_is_that_stream() -> None:
    stream = Stream()
    again = Stream(stream)
    assert (again, again.handle, again.device) == (stream, stream.handle, stream.device)


def test_stream_is_destroyed_with_its_last_user() -> None:
    before = sim.live().streams
    stream = Stream()
    user = Stream(stream)
    del stream
    gc.collect()
    assert sim.live().streams == before + 1
    user.synchronize()
    del user
    gc.collect()
    assert sim.live().streams == before


def test_foreign_object_is_kept_alive() -> None:
    class Theirs:
        def __init__(self) -> None:
            self.stream = Stream()

        def __cuda_stream__(self) -> tuple[int, int]:
            return self.stream.__cuda_stream__()

    before = sim.live().streams
    ours = Stream(Theirs())
    gc.collect()
    assert sim.live().streams == before + 1
    assert ours.is_done()
    del ours
    gc.collect()
    assert sim.live().streams == before


def test_foreign_stream_is_not_destroyed() -> None:
    owner = Stream()
    del_me = Stream(owner.handle)
    del del_me
    owner.synchronize()


def test_protocol_gives_version_0_and_the_handle() -> None:
    stream = Stream()
    assert stream.__cuda_stream__() == (0, stream.handle)


def test_protocol_of_another_version_is_refused() -> None:
    class Newer:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 1, 0

    with pytest.raises(NotImplementedError, match="version: '1'"):
        Stream(Newer())


@pytest.mark.parametrize("wrong", ["0", 1.5, True, object(), [], (0, 0)])
def test_what_is_no_stream_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"Cannot create stream from {type(wrong).__name__}"):
        Stream(wrong)
    with pytest.raises(TypeError):
        cenote.DeviceBuffer(size=1, stream=wrong)


def test_negative_handle_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="-1"):
        Stream(-1)


def test_flags_are_for_new_streams_only() -> None:
    with pytest.raises(ValueError, match="flags may only be specified when obj is None"):
        Stream(0, CudaStreamFlags.NON_BLOCKING)
    with pytest.raises(ValueError):
        Stream(flags=7)  # type: ignore[arg-type]
    Stream(flags=CudaStreamFlags.NON_BLOCKING).synchronize()


def test_new_stream_may_be_of_another_device_than_the_current_one() -> None:
    stream = Stream(device=1)
    assert stream.device == 1
    stream.synchronize()
    with pytest.raises(ValueError, match="device"):
        Stream(stream, device=1)


@pytest.mark.parametrize("device", [-1, 2, 64])
def test_stream_of_a_device_that_is_not_there_is_an_index_error(device: int) -> None:
    with pytest.raises(IndexError, match=f"no device {device}"):
        Stream(device=device)


def test_stream_that_cannot_be_made_is_a_driver_error() -> None:
    with sim.failing("cuStreamCreate", error="CUDA_ERROR_UNKNOWN"), pytest.raises(cenote.CudaError) as caught:
        Stream()
    assert (caught.value.call, caught.value.name) == ("cuStreamCreate", "CUDA_ERROR_UNKNOWN")


def test_default_streams_have_the_handles_of_the_driver() -> None:
    defaults = (cenote.DEFAULT_STREAM, cenote.LEGACY_DEFAULT_STREAM, cenote.PER_THREAD_DEFAULT_STREAM)
    assert [stream.handle for stream in defaults] == [0, 1, 2]
    assert [stream.is_default() for stream in defaults] == [True, True, False]
    assert not Stream().is_default()
    assert [repr(stream) for stream in defaults] == [
        "<cenote.Stream default>",
        "<cenote.Stream legacy default>",
        "<cenote.Stream per-thread default>",
    ]


def test_stream_is_done_when_its_work_is() -> None:
    stream = Stream()
    assert stream.is_done()
    buffer = cenote.DeviceBuffer(size=1000, stream=stream)
    buffer.copy_from_host(bytes(1000), stream)
    assert not stream.is_done()
    stream.synchronize()
    assert stream.is_done()


def test_new_stream_is_of_the_current_device(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    with on_device(1):
        stream = Stream()
    assert stream.device == 1
    assert Stream().device == 0
    stream.synchronize()
    assert stream.is_done()


@pytest.mark.parametrize(
    ("flags", "seen"), [(CudaStreamFlags.SYNC_DEFAULT, b"new"), (CudaStreamFlags.NON_BLOCKING, b"old")]
)
def test_default_stream_waits_for_blocking_streams_and_for_no_others(flags: CudaStreamFlags, seen: bytes) -> None:
    source, target = cenote.DeviceBuffer.to_device(b"new"), cenote.DeviceBuffer.to_device(b"old")
    stream = Stream(flags=flags)
    copy_device_to_ptr(source.ptr, target.ptr, 3, stream)  # queued, not run; buffers would order themselves
    assert target.tobytes(cenote.DEFAULT_STREAM) == seen
    stream.synchronize()
    assert target.tobytes() == b"new"


def test_an_array_is_not_taken_for_a_stream_though_it_has_a_pointer():
    with pytest.raises(TypeError, match="Cannot create stream from DeviceBuffer"):
        cenote.Stream(cenote.DeviceBuffer(size=10))


@pytest.mark.parametrize("device", [1.5, "0", object()])
def test_device_that_is_no_number_is_a_type_error(device: Any) -> None:
    with pytest.raises(TypeError):
        Stream(device=device)


def test_none_makes_a_new_stream_and_is_no_stream_elsewhere() -> None:
    nothing: Any = None
    assert Stream(None).handle not in (0, 1, 2)
    resource = cenote.mr.CudaMemoryResource()
    for wrong in (lambda: resource.allocate(1, nothing), lambda: resource.deallocate(0, 0, nothing)):
        with pytest.raises(TypeError, match="stream argument cannot be None"):
            wrong()


def test_a_stream_is_initialised_once() -> None:
    stream = Stream()
    handle = stream.handle
    for again in (lambda: stream.__init__(), lambda: stream.__init__(0)):  # type: ignore[misc]
        with pytest.raises(RuntimeError, match="already"):
            again()
    assert stream.handle == handle
    stream.synchronize()


def test_streams_that_only_have_a_handle_are_accepted() -> None:
    class LikeTorch:
        cuda_stream = 0x10

    class LikeCupy:
        ptr = 0x20

    class LikeNumba:
        class handle:  # a ctypes.c_void_p there
            value = 0x30

    class LikeNumbaDefault:
        class handle:
            value = None

    theirs = (LikeTorch(), LikeCupy(), LikeNumba(), LikeNumbaDefault())
    assert [Stream(stream).handle for stream in theirs] == [0x10, 0x20, 0x30, 0]
    assert [Stream(stream).owner for stream in theirs] == list(theirs)


def test_equal_handles_are_equal_streams_and_null_is_not_legacy() -> None:
    stream = Stream()
    assert stream == Stream(stream.handle) and hash(stream) == hash(Stream(stream.handle))
    assert stream != stream.handle
    assert Stream(0) == cenote.DEFAULT_STREAM != cenote.LEGACY_DEFAULT_STREAM


@pytest.mark.parametrize("flags", list(CudaStreamFlags))
def test_pool_hands_out_its_streams_in_turn(flags: CudaStreamFlags) -> None:
    pool = CudaStreamPool(pool_size=10, flags=flags)
    assert pool.get_pool_size() == 10
    streams = [pool.get_stream() for _ in range(10)]
    assert len(set(streams)) == 10
    assert not any(stream.is_default() for stream in streams)
    assert [pool.get_stream(i) for i in range(10)] == streams
    assert [pool.get_stream(stream_id=i) for i in (10, 19, 2**63)] == [streams[i % 10] for i in (10, 19, 2**63)]
    assert [pool.get_stream() for _ in range(10)] == streams
    for stream in streams:
        stream.synchronize()


def test_pool_has_16_blocking_streams_of_the_current_device(
    on_device: Callable[[int], AbstractContextManager[None]],
) -> None:
    with on_device(1):
        pool = CudaStreamPool()
    assert (pool.get_pool_size(), pool.device, pool.get_stream().device) == (16, 1, 1)
    assert repr(pool) == "<cenote.CudaStreamPool of 16 streams on device 1>"


def test_pool_lives_as_long_as_a_stream_of_it() -> None:
    before = sim.live().streams
    pool = CudaStreamPool(3)
    assert sim.live().streams == before + 3
    stream = Stream(pool.get_stream())
    del pool
    gc.collect()
    assert sim.live().streams == before + 3
    stream.synchronize()
    del stream
    gc.collect()
    assert sim.live().streams == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"pool_size": 0}, RuntimeError),
        ({"pool_size": -1}, OverflowError),
        ({"pool_size": 2**64}, OverflowError),
        ({"pool_size": 2**63}, (MemoryError, RuntimeError)),
        ({"pool_size": 1.5}, TypeError),
        ({"pool_size": None}, TypeError),
        ({"flags": 7}, ValueError),
        ({"flags": None}, ValueError),
    ],
)
def test_pool_of_no_size_or_kind_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    before = sim.live().streams
    with pytest.raises(error):
        CudaStreamPool(**arguments)
    assert sim.live().streams == before


@pytest.mark.parametrize(("number", "error"), [(-1, OverflowError), (2**64, OverflowError), (0.5, TypeError)])
def test_stream_number_that_is_none_is_refused(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        CudaStreamPool(2).get_stream(number)


def test_pool_that_was_never_made_is_refused_and_made_once() -> None:
    with pytest.raises(RuntimeError, match="never initialised"):
        CudaStreamPool.__new__(CudaStreamPool).get_stream()
    pool = CudaStreamPool(2)
    with pytest.raises(RuntimeError, match="already"):
        pool.__init__(3)  # type: ignore[misc]
    assert pool.get_pool_size() == 2


def test_pool_that_fails_half_way_leaves_no_stream() -> None:
    before = sim.live().streams
    with sim.failing("cuStreamCreate", nth=3, error="CUDA_ERROR_UNKNOWN"), pytest.raises(cenote.CudaError):
        CudaStreamPool(5)
    assert sim.live().streams == before
