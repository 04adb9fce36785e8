"""CuPy's pinned memory from a resource of cenote's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cenote.mr
from cenote.stream import CudaStreamFlags, Stream

__all__ = ["pinned_allocator"]


class _PinnedMemory:
    """One block, as CuPy's ``PinnedMemoryPointer`` wants it: freed when it dies."""

    def __init__(self, resource: cenote.mr.DeviceMemoryResource, stream: Stream, size: int) -> None:
        self.size = size
        self.ptr = resource.allocate(size, stream)
        self._resource = resource
        self._stream = stream

    def __del__(self) -> None:
        if getattr(self, "ptr", 0):
            self._resource.deallocate(self.ptr, self.size, self._stream)


def pinned_allocator(resource: cenote.mr.DeviceMemoryResource) -> Callable[[int], Any]:
    """Make a function for ``cupy.cuda.set_pinned_memory_allocator`` that takes memory from `resource`.

    Parameters
    ----------
    resource : cenote.mr.DeviceMemoryResource
        Of memory that the host may use, such as ``cenote.mr.from_spec("pool | pinned")``.

    Returns
    -------
    callable
        Of a size in bytes; it returns a ``cupy.cuda.PinnedMemoryPointer``. As with CuPy's own, memory may be used as
        soon as it is there, and must not be dropped while work of the device uses it; for its asynchronous copies CuPy
        sees to that.

    Raises
    ------
    ValueError
        The host may not use the memory of `resource`.
    """
    from cupy.cuda import PinnedMemoryPointer

    if not resource.is_host_accessible:
        raise ValueError(f"the host may not use the memory of '{resource.specification}': take 'pool | pinned'")
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING, device=resource.device)

    def allocate(size: int) -> Any:
        memory = _PinnedMemory(resource, stream, size)
        if not stream.is_done():
            stream.synchronize()
        return PinnedMemoryPointer(memory, 0)

    return allocate
