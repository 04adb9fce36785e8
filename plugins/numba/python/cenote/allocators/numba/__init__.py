"""Numba on cenote: `CenoteNumbaManager`, an external memory manager (version 1 of Numba's interface).

::

    from numba import cuda
    from cenote.allocators.numba import CenoteNumbaManager
    cuda.set_memory_manager(CenoteNumbaManager)

or, without a change to the program::

    NUMBA_CUDA_MEMORY_MANAGER=cenote.allocators.numba python script.py

Numba passes no stream to its manager. So memory is usable on every stream when it is handed out: it is allocated on a
stream of cenote's own, for which the host waits unless it is idle, as it is where fresh or long-free memory is taken.
And a freed block is reused only after all work that the device has been given by then, so that arrays may be dropped
while kernels on any stream use them. Host arrays that are passed straight to a kernel do not go through a memory
manager in numba-cuda.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import Any

import cenote.driver
import cenote.mr
from cenote.registry import Client
from cenote.stream import CudaStreamFlags, Stream

try:
    from numba import cuda
except ImportError as error:
    why = f"CenoteNumbaManager needs Numba, which cannot be imported ({error}): pip install 'cenote[numba]'"
    raise ImportError(why) from error

__all__ = ["CenoteNumbaManager", "install", "uninstall"]

_client = Client("numba")


@functools.cache
def _stream(device: int) -> Stream:
    """Give the stream on which memory of a device is allocated."""
    return Stream(flags=CudaStreamFlags.NON_BLOCKING, device=device)


def _deallocate(address: int) -> None:
    """Free a block: what Numba runs when an array dies, or at exit. It must not hold the array's pointer object."""
    _client.deallocate(address)


class CenoteNumbaManager(cuda.GetIpcHandleMixin, cuda.HostOnlyCUDAMemoryManager):
    """Numba's device memory from the current resource of the context's device.

    Arrays can be opened by other processes (``get_ipc_handle``) where the driver allows it: in memory that stands on
    ``cuda``, as ``pool | cuda`` does; not in mapped pages, and not in pools of the driver's own.
    """

    def initialize(self) -> None:
        """Nothing to prepare: the resource is looked up at each allocation."""

    def memalloc(self, size: int) -> Any:
        """Allocate device memory.

        Parameters
        ----------
        size : int
            Size in bytes.

        Returns
        -------
        numba.cuda.MemoryPointer
        """
        device = self.context.device.id
        stream = _stream(device)
        address = _client.allocate(size, stream, device)
        _client.share(address)
        if not stream.is_done():
            stream.synchronize()
        return cuda.MemoryPointer(
            weakref.proxy(self.context),
            ctypes.c_void_p(address),
            size,
            finalizer=lambda: _deallocate(address),
        )

    def get_memory_info(self) -> Any:
        """Free and total memory of the device, in bytes, as ``numba.cuda.MemoryInfo``."""
        return cuda.MemoryInfo(*cenote.driver.memory_info(self.context.device.id))

    def get_ipc_handle(self, memory: Any) -> Any:
        """Give a handle with which another process opens the memory (``cuIpcGetMemHandle``).

        Raises
        ------
        RuntimeError
            If the driver refuses it for this memory; the text says which resource to take.
        """
        try:
            return super().get_ipc_handle(memory)
        except Exception as error:  # of Numba's own class, which has moved between its modules
            current = cenote.mr.get_per_device_resource(self.context.device.id).specification
            raise RuntimeError(
                f"the driver gives no such handle (cuIpcGetMemHandle: {error}) of this memory: it does so of plain "
                f"device memory alone, not of mapped pages or of its own pools. The current resource is '{current}'; "
                "make 'pool | cuda' current before the array is made"
            ) from error

    @property
    def interface_version(self) -> int:
        """The version of Numba's interface that this is written for."""
        return 1


_numba_memory_manager = CenoteNumbaManager  # the name that NUMBA_CUDA_MEMORY_MANAGER looks for


def install() -> str:
    """Put Numba onto cenote, for contexts made from now on.

    Returns
    -------
    str
        What took effect.
    """
    import numba

    cuda.set_memory_manager(CenoteNumbaManager)
    return f"numba {numba.__version__}: device arrays come from the current resource of their device"


def uninstall() -> str:
    """Have Numba manage the memory of contexts by itself that are made from now on.

    Returns
    -------
    str
        What took effect.
    """
    import numba
    from numba.cuda.cudadrv.driver import NumbaCUDAMemoryManager

    cuda.set_memory_manager(NumbaCUDAMemoryManager)
    return f"numba {numba.__version__}: new contexts have Numba's own memory; numba.cuda.close() ends those of before"
