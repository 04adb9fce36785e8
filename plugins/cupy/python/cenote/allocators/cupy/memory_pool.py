"""CuPy's memory as an object like its own pool: for programs written for ``cupy.get_default_memory_pool()``."""

from __future__ import annotations

import os
from typing import Any

import cenote.budgets
import cenote.driver
from cenote.allocators import cupy as plugin
from cenote.budgets import set_budget_by
from cenote.registry import Client, find_per_device_resource

__all__ = ["CenoteMemoryPool"]

_client = Client("cupy")


class CenoteMemoryPool:
    """The current resource of CuPy's current device, with the methods of ``cupy.cuda.MemoryPool``.

    It holds nothing itself: each object of the class tells the same. All clients of the process share the resource, so
    that what CuPy uses is a part of what is used.
    """

    def malloc(self, size: int) -> Any:
        """Allocate; for ``cupy.cuda.set_allocator(pool.malloc)`` and ``cupy.cuda.using_allocator(pool.malloc)``.

        Parameters
        ----------
        size : int
            Size in bytes.

        Returns
        -------
        cupy.cuda.MemoryPointer

        Raises
        ------
        cupy.cuda.memory.OutOfMemoryError
            There is no memory. Its note has cenote's figures.
        """
        return plugin.cupy_allocator(size)

    def used_bytes(self) -> int:
        """Bytes of CuPy's arrays on the current device."""
        return _client.bytes_on(cenote.driver.current_device())

    def free_bytes(self) -> int:
        """Bytes that the resource holds and nobody uses; 0 for a resource that holds nothing back."""
        resource = find_per_device_resource(cenote.driver.current_device())
        if resource is None:
            return 0
        state = resource.state()
        return max((state.held or 0) - (state.in_use or 0), 0)

    def total_bytes(self) -> int:
        """Bytes of CuPy's arrays, and those that it could take without the driver: `used_bytes` and `free_bytes`."""
        return self.used_bytes() + self.free_bytes()

    def n_free_blocks(self) -> int:
        """1 while the resource holds memory that nobody uses, else 0: cenote merges free blocks, and counts bytes."""
        return int(self.free_bytes() > 0)

    def free_all_blocks(self, stream: Any = None) -> None:
        """Wait for the device's work, and give the memory that nobody uses back to the driver.

        Parameters
        ----------
        stream : cupy.cuda.Stream, optional
            Taken as CuPy takes it, and not looked at: free memory belongs to no stream.
        """
        resource = find_per_device_resource(cenote.driver.current_device())
        if resource is not None:
            resource.trim(wait=True)

    def free_all_free(self) -> None:
        """As `free_all_blocks`."""
        self.free_all_blocks()

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Bound what the process holds of the current device, in all of cenote's resources.

        Beside a `cenote.budget` the smaller of the two holds, and the error names it.

        Parameters
        ----------
        size : int, optional
            Bytes; 0 or None for no limit.
        fraction : float, optional
            A share of the device's memory, from 0 to 1.

        Raises
        ------
        ValueError
            Both are given, or one that is out of its range.
        """
        if size is not None and fraction is not None:
            raise ValueError("size and fraction cannot be specified at the same time")
        device = cenote.driver.current_device()
        if fraction is not None:
            if not 0 <= fraction <= 1:
                raise ValueError(f"fraction must be from 0 to 1, not {fraction}")
            size = int(cenote.driver.memory_info(device)[1] * fraction)
        if size is not None and size < 0:
            raise ValueError(f"size must not be negative: {size}")
        set_budget_by("CuPy's set_limit", device, str(size) if size else "")

    def get_limit(self) -> int:
        """Bytes that the process may hold of the current device; 0 where there is no limit."""
        return cenote.budgets.get_budget().limit or 0


_LIMIT_SETTER = "CUPY_GPU_MEMORY_LIMIT"


def set_limit_of_environment() -> str:
    """Have CuPy's variable bound each device as `CenoteMemoryPool.set_limit` would: bytes, or a share such as ``50%``.

    Returns
    -------
    str
        What it says; empty where it is not set.

    Raises
    ------
    ValueError
        It is neither.
    """
    limit = os.environ.get("CUPY_GPU_MEMORY_LIMIT", "")
    for device in range(cenote.driver.device_count()) if limit else ():
        set_budget_by(_LIMIT_SETTER, device, limit)
    return limit


def lift_limit_of_environment() -> None:
    """Take that bound away again."""
    for device in range(cenote.driver.device_count()):
        set_budget_by(_LIMIT_SETTER, device, "")
