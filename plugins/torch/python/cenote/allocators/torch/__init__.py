"""PyTorch on cenote: `install`, or `torch_allocator` for ``torch.cuda.memory.change_current_allocator``.

There are two ways in.

The full allocator answers all that PyTorch asks an allocator for: statistics, snapshots, pools for graphs, limits. It
is compiled for the PyTorch at hand when that is asked for, once: ``cenote build torch``. It takes effect at any time,
and `uninstall` is the way back.

The pluggable allocator needs no compiler. PyTorch accepts it only before its own allocator is used, and only once in a
process::

    import torch
    from cenote.allocators.torch import torch_allocator
    torch.cuda.memory.change_current_allocator(torch_allocator)

Tensors then come from the current resource of their device, on PyTorch's current stream; ``Tensor.record_stream`` and
``torch.cuda.empty_cache`` work. What PyTorch itself does not offer for such an allocator, ``torch.cuda.memory_stats``
and its kin, is in `cenote.usage`.

Beside them, `install` with the mode ``"mempool"`` leaves PyTorch's own allocator in its place, and puts cenote under it
as the source of segments.

``torch_allocator`` is made when it is first asked for; ImportError says why if it cannot be.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cenote
from cenote.allocators.torch import full_allocator, full_build, mempool
from cenote.frameworks import TORCH_MODES

if TYPE_CHECKING:
    from torch.cuda.memory import CUDAPluggableAllocator

__all__ = ["install", "torch_allocator", "uninstall"]


# An editable install's package is two folders: the sources', and that of what was compiled.
_LIBRARY = next(path for folder in cenote.__path__ if (path := Path(folder, "lib", "libcenote_torch.so")).exists())

# PyTorch's setter for a hook, and the function of ours that it gets.
_HOOKS = {
    "set_record_stream_fn": "cenote_torch_record_stream",
    "set_reset_fn": "cenote_torch_empty_cache",
    "set_begin_allocate_to_pool": "cenote_torch_begin_allocate_to_pool",
    "set_end_allocate_to_pool_fn": "cenote_torch_end_allocate_to_pool",
    "set_release_pool": "cenote_torch_release_pool",
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


_WITHOUT_FULL = (
    "by PyTorch's pluggable allocator, for which PyTorch itself has no memory statistics, no snapshots, no MemPool, no "
    "torch.compile(mode='reduce-overhead'); 'cenote build torch' compiles the full one"
)

# Settings of PYTORCH_ALLOC_CONF that mean the same here; the others are of PyTorch's own caches.
_HONOURED = frozenset({"backend", "per_process_memory_fraction"})


def _idle_settings() -> str:
    """Name what PYTORCH_ALLOC_CONF sets without effect."""
    text = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or ""
    names = re.findall(r"([a-z_0-9]+)\s*:", text)
    idle = sorted({name for name in names if name not in _HONOURED and not name.startswith("pinned_")})
    return f"; without effect of PYTORCH_ALLOC_CONF: {', '.join(idle)}" if idle else ""


def install(mode: str = "auto") -> str:
    """Put PyTorch onto cenote; does nothing if it is there already.

    Parameters
    ----------
    mode : str, default "auto"
        ``"auto"``: the full allocator if it is built, and the pluggable one if not. ``"full"`` or ``"pluggable"``: that
        one. ``"mempool"``: PyTorch's own allocator stays, and takes segments from cenote for the calling thread, on its
        current device.

    Returns
    -------
    str
        What took effect.

    Raises
    ------
    ValueError
        A mode that is none of these.
    ImportError
        PyTorch is not installed, or not built with CUDA.
    RuntimeError
        The full allocator is asked for and not built; or it is not built, and PyTorch's own has been used already: then
        only the full one can replace it.
    """
    if mode not in TORCH_MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, TORCH_MODES))}, not {mode!r}")
    import torch

    version = f"torch {torch.__version__}"
    if not hasattr(torch._C, "_cuda_customAllocator"):
        _make_allocator()  # which says what is missing
    is_pluggable = torch.cuda.get_allocator_backend() == "pluggable"
    if mode == "mempool":
        return f"{version}: {_install_mempool(is_pluggable)}"
    if mode != "pluggable" and not is_pluggable:
        was_on = full_allocator.is_on()
        if full_allocator.install():
            mempool.uninstall()
            if was_on:
                return f"{version}: was on cenote already"
            return f"{version}: by the full allocator{_not_run(torch.__version__)}{_idle_settings()}"
    if mode == "full":
        raise RuntimeError("the full allocator is not built for this PyTorch: cenote build torch")
    allocator = _make_allocator()
    if _is_current(allocator):
        return f"{version}: was on cenote already"
    try:
        torch.cuda.memory.change_current_allocator(allocator)
    except RuntimeError as error:
        raise RuntimeError(
            "torch's allocator is initialised already: call cenote.install before the first use of CUDA in PyTorch, or "
            "compile the full allocator once, which takes effect at any time: cenote build torch"
        ) from error
    return f"{version}: {_WITHOUT_FULL}{_idle_settings()}"


def _install_mempool(is_pluggable: bool) -> str:
    if is_pluggable:
        raise RuntimeError("PyTorch keeps the pluggable allocator that it has, under which there is no MemPool")
    if mempool.is_on():
        return "was on cenote already"
    full_allocator.uninstall()
    mempool.install(str(_LIBRARY))
    return (
        "its own allocator takes its segments from cenote, for this thread; PyTorch's threads, which run backward(), "
        "take theirs from the driver"
    )


def _not_run(version: str) -> str:
    release = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if release == full_build.RUN:
        return ""
    return " (compiled against this version; the tests ran with " + ".".join(map(str, full_build.RUN)) + ")"


def uninstall() -> str:
    """Have PyTorch's own allocator make new blocks again. Those of cenote stay valid, and go back to it.

    Returns
    -------
    str
        What took effect.

    Raises
    ------
    RuntimeError
        PyTorch is on the pluggable allocator, which it keeps for the life of the process.
    """
    import torch

    if mempool.uninstall():
        return f"torch {torch.__version__}: new segments come from the driver"
    if full_allocator.uninstall():
        return f"torch {torch.__version__}: new blocks are PyTorch's own"
    if hasattr(torch._C, "_cuda_customAllocator") and torch.cuda.get_allocator_backend() == "pluggable":
        raise RuntimeError(
            "PyTorch keeps a pluggable allocator for the life of the process; the full allocator can be taken out: "
            "cenote build torch"
        )
    return f"torch {torch.__version__}: was on its own allocator already"


def __getattr__(name: str) -> Any:
    if name == "torch_allocator":
        return _make_allocator()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
