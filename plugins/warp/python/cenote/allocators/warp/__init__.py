"""Warp on cenote: `CenoteWarpAllocator` for ``warp.set_cuda_allocator``.

::

    import warp
    from cenote.allocators.warp import CenoteWarpAllocator
    warp.set_cuda_allocator(CenoteWarpAllocator())

Arrays then come from the current resource of their device, in the order of the stream that is Warp's on the device. An
array that dies while another stream is Warp's is reused after all work that the device has been given by then.
"""

from __future__ import annotations

import cenote.driver
from cenote.registry import Client

try:
    import warp
except ImportError as error:
    why = f"CenoteWarpAllocator needs Warp, which cannot be imported ({error}): pip install warp-lang"
    raise ImportError(why) from error

__all__ = ["CenoteWarpAllocator", "install", "uninstall"]

_client = Client("warp")


class CenoteWarpAllocator:
    """Warp's memory of every CUDA device from its current resource."""

    deallocate_requires_context_guard = True
    """Warp makes the array's device current for `deallocate`, too."""

    def allocate(self, size_in_bytes: int) -> int:
        """Allocate on the device that is current, as Warp calls it.

        Parameters
        ----------
        size_in_bytes : int
            Size in bytes.

        Returns
        -------
        int
            The address.

        Raises
        ------
        cenote.OutOfMemoryError
            There is no memory. It is a MemoryError.
        """
        return _client.allocate(size_in_bytes, _current_stream(), cenote.driver.current_device())

    def deallocate(self, ptr: int, size_in_bytes: int) -> None:
        """Free it.

        Parameters
        ----------
        ptr : int
            The address.
        size_in_bytes : int
            What it was allocated with.
        """
        _client.deallocate(ptr, _current_stream())


def _current_stream() -> int:
    stream: int | None = warp.get_cuda_device().stream.cuda_stream
    return stream or 0


_allocator = CenoteWarpAllocator()


def install() -> str:
    """Put Warp onto cenote, for arrays from now on, on every device.

    Returns
    -------
    str
        What took effect.
    """
    warp.set_cuda_allocator(_allocator)
    return f"warp {warp.__version__}: arrays come from the current resource of their device"


def uninstall() -> str:
    """Give Warp its own allocator back, for arrays from now on.

    Returns
    -------
    str
        What took effect.
    """
    warp.set_cuda_allocator(None)
    return f"warp {warp.__version__}: new arrays come from its own allocator"
