"""Pickled DeviceBuffers, and copies and pickles of subclasses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr
from host_text import TEXT


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
