"""DLPack: DeviceBuffer in the hands of other array libraries, looked at as they do, through the C structs."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr, sim
from cenote.device_buffer import copy_device_to_ptr

TEXT = b"the water is the same"
CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
IS_COPIED = 2


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Legacy(ctypes.Structure):
    name = b"dltensor"
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p))]


class Versioned(ctypes.Structure):
    name = b"dltensor_versioned"
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


def look(capsule: Any) -> Any:
    """The struct in a capsule, which keeps it."""
    struct = Versioned if "dltensor_versioned" in repr(capsule) else Legacy
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return struct.from_address(get(capsule, struct.name))


def consume(capsule: Any) -> Callable[[], None]:
    """Take the tensor out as a consumer does; returns what ends its use."""
    managed = look(capsule)
    used = {Legacy: b"used_dltensor", Versioned: b"used_dltensor_versioned"}[type(managed)]
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
    assert rename(capsule, used) == 0
    kept.append(used)
    return lambda: managed.deleter(ctypes.addressof(managed))


kept: list[bytes] = []  # a capsule does not copy its name


def filled(spec: str = "cuda", stream: Any = cenote.DEFAULT_STREAM) -> DeviceBuffer:
    buffer = DeviceBuffer(size=len(TEXT), mr=mr.from_spec(spec), stream=stream)
    buffer.copy_from_host(TEXT, stream)
    return buffer


DEVICES = {
    "cuda": (CUDA, 0),
    "async": (CUDA, 0),
    "pool:initial=0 | cuda": (CUDA, 0),
    "pinned": (CUDA_HOST, 0),
    "pool:initial=0 | pinned": (CUDA_HOST, 0),
    "managed": (CUDA_MANAGED, 0),
    "statistics | managed": (CUDA_MANAGED, 0),
}


@pytest.mark.parametrize(("spec", "device"), DEVICES.items())
@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 9), (2, 0)])
def test_every_field_says_what_the_buffer_is(
    spec: str, device: tuple[int, int], max_version: tuple[int, int] | None
) -> None:
    buffer = filled(spec)
    assert buffer.__dlpack_device__() == device
    capsule = buffer.__dlpack__(max_version=max_version)
    managed = look(capsule)
    if max_version is None or max_version < (1, 0):
        assert isinstance(managed, Legacy)
    else:
        assert isinstance(managed, Versioned)
        assert (managed.major, managed.flags) == (1, 0)
    tensor = managed.tensor
    assert (tensor.data, tensor.device_type, tensor.device_id) == (buffer.ptr, *device)
    assert (tensor.code, tensor.bits, tensor.lanes) == (1, 8, 1)  # unsigned int of 8 bits
    assert (tensor.ndim, tensor.shape[0], tensor.strides[0], tensor.byte_offset) == (1, len(TEXT), 1, 0)
    assert managed.context and managed.deleter


def test_memory_of_another_device_carries_its_number(on_device: Any) -> None:
    with on_device(1):
        buffer = DeviceBuffer(size=10, mr=mr.CudaMemoryResource())
    assert buffer.__dlpack_device__() == (CUDA, 1)
    tensor = look(capsule := buffer.__dlpack__()).tensor
    assert (tensor.device_type, tensor.device_id) == (CUDA, 1)
    del capsule


@pytest.mark.parametrize(("spec", "device"), [("cuda", (CUDA, 0)), ("pinned", (CUDA_HOST, 0))])
def test_empty_buffers_are_tensors_of_no_bytes(spec: str, device: tuple[int, int]) -> None:
    buffer = DeviceBuffer(mr=mr.from_spec(spec))
    assert buffer.__dlpack_device__() == device
    tensor = look(capsule := buffer.__dlpack__(max_version=(1, 0))).tensor
    assert (tensor.data, tensor.ndim, tensor.shape[0], tensor.strides[0]) == (None, 1, 0, 1)
    del capsule
    assert np.from_dlpack(buffer, device="cpu").shape == (0,)


@pytest.mark.parametrize("spec", ["pinned", "managed", "pool:initial=0 | managed"])
@pytest.mark.parametrize("given", [{}, {"device": "cpu"}, {"device": "cpu", "copy": False}, {"copy": None}])
def test_numpy_shares_memory_that_the_host_reaches(spec: str, given: dict[str, Any]) -> None:
    buffer = filled(spec)
    array = np.from_dlpack(buffer, **given)
    assert (array.dtype, array.tobytes(), array.ctypes.data) == (np.uint8, TEXT, buffer.ptr)
    buffer.copy_from_host(b"THE")
    assert array.tobytes() == b"THE" + TEXT[3:]
    array[0] = ord("t")
    assert buffer.tobytes() == b"tHE" + TEXT[3:]


@pytest.mark.parametrize("spec", ["cuda", "async", "pinned", "managed"])
def test_numpy_gets_a_copy_where_it_asks_for_one(spec: str) -> None:
    buffer = filled(spec)
    array = np.from_dlpack(buffer, device="cpu", copy=True)
    assert array.tobytes() == TEXT
    buffer.copy_from_host(b"THE")
    assert array.tobytes() == TEXT
    buffer.resize(1000)


@pytest.mark.parametrize("spec", ["cuda", "async"])
def test_device_memory_goes_to_the_host_by_copy_alone(spec: str) -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer = DeviceBuffer(size=len(TEXT), mr=mr.from_spec(spec), stream=stream)
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, stream)
    array = np.from_dlpack(buffer, device="cpu")
    assert array.tobytes() == TEXT
    managed = look(capsule := buffer.__dlpack__(dl_device=(CPU, 0), max_version=(1, 0)))
    assert (managed.flags, managed.tensor.device_type, managed.tensor.device_id) == (IS_COPIED, CPU, 0)
    assert ctypes.string_at(managed.tensor.data, managed.tensor.shape[0]) == TEXT
    buffer.resize(1000, stream)
    del capsule
    with pytest.raises(BufferError, match="without a copy"):
        buffer.__dlpack__(dl_device=(CPU, 0), copy=False)
    with pytest.raises(BufferError, match="without a copy"):
        np.from_dlpack(buffer, device="cpu", copy=False)


@pytest.mark.parametrize("spec", ["cuda", "pinned", "managed"])
def test_a_copy_is_marked_and_leaves_the_buffer_free(spec: str) -> None:
    buffer = filled(spec)
    managed = look(capsule := buffer.__dlpack__(copy=True, max_version=(1, 0)))
    assert managed.flags == IS_COPIED
    assert managed.tensor.data != buffer.ptr
    assert (managed.tensor.device_type, managed.tensor.device_id) == buffer.__dlpack_device__()
    target = DeviceBuffer(size=len(TEXT))
    copy_device_to_ptr(managed.tensor.data, target.ptr, len(TEXT))
    assert target.tobytes() == TEXT
    buffer.close()
    assert ctypes.sizeof(managed) == 80
    del capsule


def test_memory_of_the_host_can_be_had_as_memory_of_the_device() -> None:
    buffer = filled("pinned")
    tensor = look(capsule := buffer.__dlpack__(dl_device=(CUDA, 0))).tensor
    assert (tensor.data, tensor.device_type, tensor.device_id) == (buffer.ptr, CUDA, 0)
    del capsule


@pytest.mark.parametrize("device", [(CUDA, 1), (CPU, 1), (CUDA_HOST, 0), (7, 0)])
def test_device_that_there_is_no_way_to_is_refused(device: tuple[int, int]) -> None:
    buffer = filled()
    with pytest.raises(BufferError, match="cannot be exported"):
        buffer.__dlpack__(dl_device=device)
    buffer.resize(1000)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stream": 0}, ValueError),
        ({"stream": -2}, ValueError),
        ({"stream": True}, TypeError),
        ({"stream": "1"}, TypeError),
        ({"stream": 1.5}, TypeError),
        ({"dl_device": ("cpu", 0)}, TypeError),
        ({"dl_device": 1}, TypeError),
        ({"max_version": 1}, TypeError),
    ],
)
@pytest.mark.parametrize("spec", ["cuda", "pinned"])
def test_bad_arguments_are_refused_and_leave_no_export(
    spec: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    buffer = filled(spec)
    with pytest.raises(error):
        buffer.__dlpack__(**arguments)
    buffer.resize(1000)


def test_arguments_are_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        filled().__dlpack__(1)  # type: ignore[misc]


# Order.


def order_calls(buffer: DeviceBuffer, **arguments: Any) -> tuple[int, int]:
    """How often an export waits on the device, and on the host."""
    sim.reset_calls()
    buffer.__dlpack__(**arguments)
    return sim.calls("cuStreamWaitEvent"), sim.calls("cuStreamSynchronize")


def test_a_consumer_on_another_stream_waits_on_the_device() -> None:
    own, theirs = Stream(flags=CudaStreamFlags.NON_BLOCKING), Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer, target = DeviceBuffer(size=len(TEXT), stream=own), DeviceBuffer(size=len(TEXT))
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, own)
    capsule = buffer.__dlpack__(stream=theirs.handle)
    copy_device_to_ptr(look(capsule).tensor.data, target.ptr, len(TEXT), theirs)
    assert not own.is_done(), "the host waited"
    theirs.synchronize()
    assert target.tobytes() == TEXT


@pytest.mark.parametrize("stream", [None, 1])
def test_without_a_stream_it_is_the_legacy_default_one_that_waits(stream: int | None) -> None:
    own = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer, target = DeviceBuffer(size=len(TEXT), stream=own), DeviceBuffer(size=len(TEXT))
    queued = DeviceBuffer.to_device(TEXT)  # freeing it would wait
    buffer.copy_from_device(queued, own)
    capsule = buffer.__dlpack__(stream=stream)
    assert not own.is_done(), "the host waited"
    copy_device_to_ptr(look(capsule).tensor.data, target.ptr, len(TEXT))
    assert target.tobytes() == TEXT


def test_order_is_made_where_it_is_needed_alone() -> None:
    own, other = Stream(), Stream()
    buffer = filled(stream=own)
    assert order_calls(buffer, stream=own.handle) == (0, 0)
    assert order_calls(buffer, stream=-1) == (0, 0)
    assert order_calls(buffer, stream=other.handle) == (1, 0)
    assert order_calls(buffer, stream=other) == (1, 0)
    assert order_calls(buffer, stream=2) == (1, 0)
    assert order_calls(filled(), stream=1) == (0, 0)
    assert order_calls(filled()) == (0, 0)


@pytest.mark.parametrize("spec", ["pinned", "managed"])
def test_where_the_consumer_may_be_the_host_the_bytes_are_there(spec: str) -> None:
    own = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    source, zeros = DeviceBuffer.to_device(TEXT), DeviceBuffer.to_device(bytes(len(TEXT)))
    buffer = DeviceBuffer(size=len(TEXT), stream=own, mr=mr.from_spec(spec))
    for see in (np.from_dlpack, lambda buffer: np.from_dlpack(buffer, device="cpu")):
        buffer.copy_from_device(zeros, own)
        buffer.copy_from_device(source, own)
        assert not own.is_done()
        assert see(buffer).tobytes() == TEXT
    assert order_calls(buffer, stream=own.handle) == (0, 0)


@pytest.mark.parametrize("exported", [True, False])
def test_memory_used_on_a_stream_of_others_is_reused_after_that_use(exported: bool) -> None:
    """Without the export the same reuse comes too early: the control."""
    own, theirs = Stream(flags=CudaStreamFlags.NON_BLOCKING), Stream(flags=CudaStreamFlags.NON_BLOCKING)
    pool, target = mr.from_spec("pool:initial=4KiB,max=4KiB | cuda"), DeviceBuffer(size=4096)
    old, new = DeviceBuffer.to_device(b"o" * 4096), DeviceBuffer.to_device(b"n" * 4096)
    buffer = DeviceBuffer(size=4096, stream=own, mr=pool)
    buffer.copy_from_device(old, own)
    own.synchronize()
    if exported:
        consume(buffer.__dlpack__(stream=theirs.handle))()
    copy_device_to_ptr(buffer.ptr, target.ptr, 4096, theirs)  # theirs reads it, later
    del buffer
    other = DeviceBuffer(size=4096, stream=own, mr=pool)
    other.copy_from_device(new, own)
    own.synchronize()
    theirs.synchronize()
    assert target.tobytes() == (b"o" if exported else b"n") * 4096


# Who keeps what alive.


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_capsule_keeps_the_memory_alive_and_where_it_is(max_version: tuple[int, int] | None) -> None:
    before = sim.live().allocations
    buffer = filled()
    capsule = buffer.__dlpack__(max_version=max_version)
    for change in (buffer.resize, buffer.reserve):
        with pytest.raises(BufferError, match="is alive"):
            change(1000)
    for end in (buffer.shrink_to_fit, buffer.close):
        with pytest.raises(BufferError, match="is alive"):
            end()
    del buffer, change, end
    gc.collect()
    assert sim.live().allocations == before + 1
    del capsule
    assert sim.live().allocations == before


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_consumed_capsule_is_the_consumers_alone(max_version: tuple[int, int] | None) -> None:
    before = sim.live().allocations
    buffer = filled()
    capsule = buffer.__dlpack__(max_version=max_version)
    end = consume(capsule)
    del capsule
    with pytest.raises(BufferError):
        buffer.resize(1000)
    end()  # without the GIL, which ctypes gives away
    buffer.resize(1000)
    end = consume(buffer.__dlpack__(max_version=max_version))
    del buffer
    assert sim.live().allocations == before + 1
    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert sim.live().allocations == before


def test_array_of_numpy_keeps_the_buffer_alive() -> None:
    before = sim.live().pinned_bytes
    buffer = filled("pinned")
    array = np.from_dlpack(buffer)
    with pytest.raises(BufferError):
        buffer.close()
    del buffer
    gc.collect()
    assert array.tobytes() == TEXT
    del array
    assert sim.live().pinned_bytes == before


def test_several_exports_end_one_by_one() -> None:
    buffer = filled("pinned")
    array, view, capsule = np.from_dlpack(buffer), memoryview(buffer), buffer.__dlpack__()
    del array
    with pytest.raises(BufferError):
        buffer.close()
    view.release()
    with pytest.raises(BufferError):
        buffer.close()
    del capsule
    buffer.close()


def test_export_that_failed_is_none() -> None:
    buffer, other = filled(), Stream()
    with sim.failing("cuEventRecord", error="CUDA_ERROR_UNKNOWN"), pytest.raises(cenote.CudaError):
        buffer.__dlpack__(stream=other)
    buffer.resize(1000)


def test_arrays_may_outlive_the_interpreter(run_fresh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = run_fresh(
        """
        import builtins, ctypes
        import numpy as np
        from cenote import DeviceBuffer, mr
        builtins.array = np.from_dlpack(DeviceBuffer(size=10, mr=mr.PinnedHostMemoryResource()))
        builtins.capsule = DeviceBuffer(size=10).__dlpack__(max_version=(1, 0))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(builtins.array))
        """
    )
    assert finished.stderr == ""


def test_buffer_that_was_never_initialised_is_refused() -> None:
    buffer = DeviceBuffer.__new__(DeviceBuffer)
    for call in (buffer.__dlpack__, buffer.__dlpack_device__, buffer.close, lambda: memoryview(buffer)):
        with pytest.raises(RuntimeError, match="never initialised"):
            call()
