"""What RMM's Python package has and cenote does not: for `cenote.compat.as_rmm` only."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import cenote
from cenote.stream import Stream

__all__ = ["DeviceBuffer", "RMMError", "as_stream", "rmm_cupy_allocator", "rmm_torch_allocator", "to_device"]

__version__ = "26.10.0"  # the RMM whose API this is
__git_commit__ = ""

rmm_torch_allocator: Any  # looked up below, as it imports PyTorch


class RMMError(Exception):
    """RMM defines this and never raises it; nor does cenote."""

    def __init__(self, errcode: int, msg: str) -> None:
        super().__init__(msg)
        self.errcode = errcode


class DeviceBuffer(cenote.DeviceBuffer):
    """A `cenote.DeviceBuffer` whose ``__cuda_array_interface__`` is RMM's.

    RMM promises version 0 of that protocol, which has no stream, and its published tests compare the whole dictionary.
    cenote's own is version 3, whose stream lets a consumer order its work after the buffer's. Who reads an RMM buffer
    knows that it has to synchronise itself.

    The class says that it is of RMM's module, as Dask finds its serializers by the first name of a class's module.
    """

    __module__ = "rmm.pylibrmm.device_buffer"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The protocol by which array libraries see the buffer as unsigned bytes, without its stream."""
        interface = super().__cuda_array_interface__
        del interface["stream"]
        return {**interface, "version": 0}


to_device = DeviceBuffer.to_device


def _append_id(filename: str, id: int) -> str:
    """Put ``.dev<id>`` before the extension of a file name, as the logging adaptor does."""
    path = Path(filename)
    return str(path.with_name(f"{path.stem}.dev{id}{path.suffix}"))


def as_stream(stream: Any) -> Stream:
    """Take any framework's stream as a `Stream`; TypeError for None."""
    if stream is None:
        raise TypeError("stream argument cannot be None")
    return stream if isinstance(stream, Stream) else Stream(stream)


def get_per_device_resource_type(device: int) -> type:
    """Give the class of a device's current resource; RMM had this up to 26.06."""
    return type(cenote.mr.get_per_device_resource(device))


def get_current_device_resource_type() -> type:
    """Give the class of the current device's current resource; RMM had this up to 26.06."""
    return type(cenote.mr.get_current_device_resource())


def rmm_cupy_allocator(nbytes: int) -> Any:
    """Allocate for CuPy, for ``cupy.cuda.set_allocator``: memory that a `DeviceBuffer` owns, which RMM's users reach.

    `cenote.allocators.cupy.cupy_allocator` does the same without a Python object an array, and faster.
    """
    cupy = importlib.import_module("cupy")
    buffer = DeviceBuffer(size=nbytes, stream=Stream(cupy.cuda.get_current_stream()))
    return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(buffer.ptr, buffer.size, buffer, buffer.device), 0)


def _torch_allocator() -> Any:
    """Make the allocator for PyTorch; None where there is no PyTorch, or none that sees a device, as in RMM."""
    if importlib.util.find_spec("torch") is None or not importlib.import_module("torch.cuda").is_available():
        return None
    return importlib.import_module("cenote.allocators.torch").torch_allocator


def __getattr__(name: str) -> Any:
    if name == "rmm_torch_allocator":
        return _torch_allocator()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
