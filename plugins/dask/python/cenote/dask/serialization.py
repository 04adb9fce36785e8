"""How Dask sends a `cenote.DeviceBuffer`, keeps it on the host, and counts it: registered when this is imported.

Each process that sends or receives buffers imports `cenote.dask`: workers by the plugin or ``--preload``, a client by
itself. Without it Dask pickles buffers, which works too.

``dask``
    The bytes, copied to the host on the buffer's own stream. Where they arrive and the device has no room, the buffer
    lies in pinned host memory.
``cuda``
    The buffer itself, for protocols that send device memory (UCX). What arrives is kept as it is where the
    communication made it a buffer of the same class, and else copied on the device.

A class derived from `DeviceBuffer` is pickled, as only it knows what else it consists of.
"""

from __future__ import annotations

from typing import Any

from dask.sizeof import sizeof
from distributed.protocol import cuda_deserialize, cuda_serialize, dask_deserialize, dask_serialize

import cenote
from cenote.compat import rmm_only
from cenote.dask.room import or_on_the_host

__all__: list[str] = []

_Header = dict[str, Any]


def _sizeof(buffer: cenote.DeviceBuffer) -> int:
    return buffer.capacity()


def _register(cls: type[cenote.DeviceBuffer]) -> None:
    """Register the buffers of one class: `DeviceBuffer`, and what ``import rmm`` calls so under the alias."""

    def require_itself(buffer: cenote.DeviceBuffer) -> None:
        if type(buffer) is not cls:
            raise NotImplementedError(f"{type(buffer).__name__} is pickled")

    @dask_serialize.register(cls)
    def to_host(buffer: cenote.DeviceBuffer) -> tuple[_Header, list[memoryview]]:
        require_itself(buffer)
        return {}, [memoryview(bytes(buffer))]

    @dask_deserialize.register(cls)
    @or_on_the_host
    def from_host(header: _Header, frames: list[Any]) -> cenote.DeviceBuffer:
        (frame,) = frames
        return cls.to_device(memoryview(frame).cast("B"))

    @cuda_serialize.register(cls)
    def on_device(buffer: cenote.DeviceBuffer) -> tuple[_Header, list[cenote.DeviceBuffer]]:
        require_itself(buffer)
        return {}, [buffer]

    @cuda_deserialize.register(cls)
    def from_device(header: _Header, frames: list[Any]) -> cenote.DeviceBuffer:
        (frame,) = frames
        if type(frame) is cls:
            return frame
        buffer = cls(size=frame.nbytes)
        buffer.copy_from_device(frame)
        return buffer

    sizeof.register(cls, _sizeof)


_register(cenote.DeviceBuffer)
_register(rmm_only.DeviceBuffer)
