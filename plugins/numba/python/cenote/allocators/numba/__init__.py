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
while kernels on any stream use them. `on_stream` says which stream arrays are of, and then neither is needed. Host
arrays that are passed straight to a kernel do not go through a memory manager in numba-cuda, but through cuda.core.
"""

from __future__ import annotations

try:
    from numba import cuda
except ImportError as error:
    why = f"CenoteNumbaManager needs Numba, which cannot be imported ({error}): pip install 'cenote[numba]'"
    raise ImportError(why) from error

from cenote.allocators.numba.memory_manager import CenoteNumbaManager, on_stream

__all__ = ["CenoteNumbaManager", "install", "on_stream", "uninstall"]

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
    return f"numba {numba.__version__}: new contexts have Numba's own memory, those of before keep cenote's"
