"""A pool that holds nothing before its first allocation. Tests put adaptors on it."""

from __future__ import annotations

from cenote import mr


def pool() -> mr.PoolMemoryResource:
    return mr.PoolMemoryResource(mr.CudaMemoryResource(), 0)
