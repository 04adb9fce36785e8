"""PyTorch on cenote: `torch_allocator` for ``torch.cuda.memory.change_current_allocator``.

::

    import torch
    from cenote.allocators.torch import torch_allocator
    torch.cuda.memory.change_current_allocator(torch_allocator)

PyTorch accepts another allocator only before its own is used, and only once in a process. Tensors then come from the
current resource of their device, on PyTorch's current stream; ``Tensor.record_stream`` and ``torch.cuda.empty_cache``
work. What PyTorch itself does not offer for such an allocator, ``torch.cuda.memory_stats`` and its kin, is in
`cenote.usage`.

``torch_allocator`` is made when it is first asked for; ImportError says why if it cannot be.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cenote

if TYPE_CHECKING:
    from torch.cuda.memory import CUDAPluggableAllocator

__all__ = ["install", "torch_allocator"]

# An editable install's package is two folders: the sources', and that of what was compiled.
_LIBRARY = next(path for folder in cenote.__path__ if (path := Path(folder, "lib", "libcenote_torch.so")).exists())

# PyTorch's setter for a hook, and the function of ours that it gets.
_HOOKS = {
    "set_record_stream_fn": "cenote_torch_record_stream",
    "set_reset_fn": "cenote_torch_empty_cache",
    "set_begin_allocate_to_pool": "cenote_torch_begin_allocate_to_pool",
    "set_end_allocate_to_pool_fn": "cenote_torch_end_allocate_to_pool",
}


@functools.cache
def _make_allocator() -> CUDAPluggableAllocator:
    try:
        import torch
    except ImportError as error:
        why = f"torch_allocator needs PyTorch, which cannot be imported ({error}): pip install torch"
        raise ImportError(why) from error
    if not hasattr(torch._C, "_cuda_customAllocator"):
        raise ImportError(
            f"torch_allocator needs a PyTorch built with CUDA; this is {torch.__version__}, which has none"
        )
    allocator = torch.cuda.memory.CUDAPluggableAllocator(
        str(_LIBRARY), "cenote_torch_allocate", "cenote_torch_deallocate"
    )
    library = ctypes.CDLL(str(_LIBRARY))
    for setter, function in _HOOKS.items():
        address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
        getattr(allocator.allocator(), setter)(address)
    return allocator


def _is_current(allocator: CUDAPluggableAllocator) -> bool:
    import torch

    current = torch._C._cuda_getAllocator() if torch.cuda.get_allocator_backend() == "pluggable" else None
    return current is allocator.allocator()


def install() -> str:
    """Put PyTorch onto cenote; does nothing if it is there already.

    Returns
    -------
    str
        What took effect.

    Raises
    ------
    ImportError
        PyTorch is not installed, or not built with CUDA.
    RuntimeError
        PyTorch's own allocator has been used already, and cannot be replaced any more.
    """
    import torch

    allocator = _make_allocator()
    if _is_current(allocator):
        return f"torch {torch.__version__}: was on cenote already"
    try:
        torch.cuda.memory.change_current_allocator(allocator)
    except RuntimeError as error:
        raise RuntimeError(
            "torch's allocator is initialised already: call cenote.install before the first use of CUDA in PyTorch"
        ) from error
    return f"torch {torch.__version__}: tensors come from the current resource of their device"


def __getattr__(name: str) -> Any:
    if name == "torch_allocator":
        return _make_allocator()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
