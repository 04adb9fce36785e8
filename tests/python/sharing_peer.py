"""The other process of tests that share memory: it does what it is told, one function of this module a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

_opened: dict[str, Any] = {}  # buffers by name


class Peer:
    """A process that runs functions of this module. The environment may be changed for it."""

    def __init__(self, **environment: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return self.answer()

    def tell(self, name: str, *arguments: Any) -> None:
        self._connection.send((name, arguments))

    def answer(self) -> Any:
        result = self._connection.recv()
        if isinstance(result, BaseException):
            raise result
        return result

    def kill(self) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._connection.close()


def serve(connection: Connection) -> None:
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(globals()[name](*arguments))
        except Exception as error:
            connection.send(error)


def open_block(handle: Any, name: str = "block", device: int | None = None) -> tuple[int, int]:
    import cenote
    from cenote._core.driver import set_device

    if device is not None:
        set_device(device)
    _opened[name] = cenote.open_shared(handle)
    return _opened[name].size, _opened[name].device


def copy_to_device(handle: Any, device: int) -> bytes:
    """The contents of a block, copied by a stream of that device, which it is opened on."""
    import cenote

    cenote.driver.set_device(device)
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    theirs = cenote.open_shared(handle, stream=stream)
    mine = cenote.DeviceBuffer(size=theirs.size, stream=stream)
    mine.copy_from_device(theirs, stream=stream)
    return mine.tobytes(stream)


def read_by_c(handle: str) -> bytes:
    """The contents of a block, opened and closed by the C ABI."""
    import ctypes

    import cenote
    from cenote.device_buffer import copy_ptr_to_host

    library = ctypes.CDLL(str(next(Path(cenote.__file__).parent.glob("lib/libcenote.so.*[0-9]"))))
    library.cenote_open_shared.restype = ctypes.c_void_p
    library.cenote_last_error.restype = ctypes.c_char_p
    size, device = ctypes.c_size_t(), ctypes.c_int(-1)
    address = library.cenote_open_shared(handle.encode(), None, ctypes.byref(size), ctypes.byref(device))
    if address is None or device.value != 0:
        raise RuntimeError(library.cenote_last_error().decode())
    copied = bytearray(size.value)
    copy_ptr_to_host(address, copied)
    if library.cenote_close_shared(ctypes.c_void_p(address), None) != 0:
        raise RuntimeError(library.cenote_last_error().decode())
    return bytes(copied)


def contents(name: str = "block") -> bytes:
    return bytes(_opened[name].tobytes())


def is_pattern(seed: int, name: str = "block") -> bool:
    return bytes(_opened[name].tobytes()) == pattern(seed, _opened[name].size)


def write(data: bytes, name: str = "block") -> None:
    _opened[name].copy_from_host(data)


def let_go(name: str = "block") -> None:
    del _opened[name]


def make_block(seed: int, size: int, name: str = "block") -> Any:
    import cenote
    from cenote import mr

    if "pool" not in _opened:
        _opened["pool"] = mr.from_spec("pool | virtual")
    _opened[name] = cenote.DeviceBuffer(size=size, mr=_opened["pool"])
    _opened[name].copy_from_host(pattern(seed, size))
    return _opened[name].share()


def become_user(user: int) -> None:
    import cenote

    cenote.available_device_memory()  # what is loaded then need not be readable for that user
    os.setuid(user)


def pattern(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


class Footprint(dict[str, int]):
    """What a process has of descriptors, mapped ranges and simulated objects."""

    RANGES_THAT_COME_AND_GO = 50  # those of the allocator of the host, and of stacks; a leak is one for each block

    def has_grown_since(self, before: Footprint) -> dict[str, tuple[int, int]]:
        allowed = {"ranges": self.RANGES_THAT_COME_AND_GO}
        return {name: (before[name], now) for name, now in self.items() if now > before[name] + allowed.get(name, 0)}


def footprint() -> Footprint:
    import cenote.sim

    with open("/proc/self/maps") as maps:
        ranges = sum(1 for _ in maps)
    live = cenote.sim.live()
    return Footprint(
        descriptors=len(os.listdir("/proc/self/fd")),
        ranges=ranges,
        device_bytes=live.device_bytes,
        handles=live.handles,
        mappings=live.mappings,
        reservations=live.reservations,
        events=live.events,
    )
