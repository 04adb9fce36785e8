"""Calls that Numba makes of the driver about addresses, answered for memory of cenote's.

Numba asks the driver for the extents of an allocation, and has it open and close what other processes have. The driver
knows what lies under a pool, not the pool's blocks: so for these four functions of Numba's driver object are answered
here, and for all else by the driver.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import cenote
from cenote.allocators.numba.blocks import find_block
from cenote.allocators.numba.raw_handle import RAW_BYTES, RawHandle, unpack_handle
from numba.cuda.cudadrv.driver import binding, driver

__all__ = ["answer_for_cenote", "extents_of_driver"]

_asked: dict[str, Any] = {}
"""The driver's own functions, by name."""
_are_answered = False
_installing = threading.Lock()
_opened: dict[int, cenote.DeviceBuffer] = {}
"""By address."""


def answer_for_cenote() -> None:
    """Put the answers in place. It may be called again, which Numba does whenever it looks for its context."""
    global _are_answered
    if _are_answered:
        return
    answers = (cuMemGetAddressRange, cuMemHostGetDevicePointer, cuIpcOpenMemHandle, cuIpcCloseMemHandle)
    with _installing:  # threads make their contexts at once
        if _are_answered:
            return
        asked = {answer.__name__: getattr(driver, answer.__name__) for answer in answers}
        _asked.update(asked)
        for answer in answers:
            setattr(driver, answer.__name__, answer)
        _are_answered = True


def extents_of_driver(address: int) -> tuple[int, int]:
    """Begin and size of what the driver has allocated around an address."""
    begin, size = _asked["cuMemGetAddressRange"](address)
    return int(begin), int(size)


def cuMemGetAddressRange(address: Any) -> tuple[Any, int]:
    """Begin and size of the block that an address lies in."""
    block = find_block(int(address))
    if block is None:
        extents: tuple[Any, int] = _asked["cuMemGetAddressRange"](address)
        return extents
    return binding.CUdeviceptr(block.address), block.size


def cuMemHostGetDevicePointer(address: Any, flags: int) -> Any:
    """Where the device has memory of the host: pinned memory lies at one address for both."""
    if find_block(int(address)) is None:
        return _asked["cuMemHostGetDevicePointer"](address, flags)
    return binding.CUdeviceptr(int(address))


def cuIpcOpenMemHandle(handle: Any, flags: int) -> Any:
    """Open what another process has: a block of cenote's, or the driver's memory."""
    raw = handle.reserved if isinstance(handle, RawHandle) else ctypes.string_at(handle.getPtr(), RAW_BYTES)
    text = unpack_handle(raw)
    if text is None:
        return _asked["cuIpcOpenMemHandle"](handle, flags)
    buffer = cenote.open_shared(text)
    _opened[buffer.ptr] = buffer
    return binding.CUdeviceptr(buffer.ptr)


def cuIpcCloseMemHandle(address: Any) -> None:
    """Wait for the work on the default stream, and let the owner have it."""
    buffer = _opened.pop(int(address), None)
    if buffer is None:
        _asked["cuIpcCloseMemHandle"](address)
    else:
        buffer.close()
