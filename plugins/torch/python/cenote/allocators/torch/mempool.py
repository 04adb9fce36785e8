"""cenote as the source of segments under PyTorch's own allocator, by a ``torch.cuda.MemPool``.

PyTorch's cache stays, and everything that belongs to it: statistics, snapshots, settings. Its segments come from the
current resource, for the thread that has asked for it: PyTorch's own threads, which run ``backward()``, do not follow,
and take segments from the driver.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

__all__ = ["install", "is_on", "uninstall"]

_entered: list[tuple[Any, AbstractContextManager[Any]]] = []
"""The pool, and the context that sends this thread's allocations there."""


def install(library: str) -> None:
    """Send the calling thread's allocations on its current device into a pool whose segments are cenote's."""
    import torch

    if _entered:
        return
    source = torch.cuda.memory.CUDAPluggableAllocator(
        library, "cenote_torch_allocate_segment", "cenote_torch_deallocate"
    )
    pool = torch.cuda.MemPool(source.allocator())
    context = torch.cuda.use_mem_pool(pool)
    context.__enter__()
    _entered.append((pool, context))


def uninstall() -> bool:
    """Have PyTorch take segments from the driver again; False if it does already. Tensors of cenote stay valid."""
    if not _entered:
        return False
    _pool, context = _entered.pop()
    context.__exit__(None, None, None)
    return True


def is_on() -> bool:
    """Tell whether the segments of a thread come from cenote."""
    return bool(_entered)
