"""CuPy on cenote: `cupy_allocator` for ``cupy.cuda.set_allocator``.

::

    import cupy
    from cenote.allocators.cupy import cupy_allocator
    cupy.cuda.set_allocator(cupy_allocator)

Arrays then come from the current resource of their device, on CuPy's current stream. An array that dies while another
stream than its own is current is reused only after all work that the device has been given by then.

``cupy_allocator`` is made when it is first asked for; ImportError says why if it cannot be.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["cupy_allocator", "install", "uninstall"]

_replaced: Callable[[int], Any] | None = None
"""CuPy's allocator before install()."""


def _c_function(module: Any, name: str, signature: bytes) -> int:
    """Address of a C function that CuPy exports to other extension modules."""
    capsule = getattr(module, "__pyx_capi__", {}).get(name)
    is_valid = ctypes.pythonapi.PyCapsule_IsValid
    is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
    if capsule is None or not is_valid(capsule, signature):
        import cupy

        raise ImportError(f"CuPy {cupy.__version__} does not export its {name} to extension modules; 14.x does")
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    get_pointer.restype = ctypes.c_void_p
    return get_pointer(capsule, signature)


@functools.cache
def _make_allocator() -> Callable[[int], Any]:
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            f"cupy_allocator needs CuPy, which cannot be imported ({error}): pip install cupy-cuda13x, or cupy-cuda12x"
        ) from error
    from cupy_backends.cuda import stream

    from cenote.allocators.cupy import _allocator

    return _allocator.make_allocator(
        cupy.cuda.memory.BaseMemory,
        cupy.cuda.MemoryPointer,
        cupy.cuda.runtime.setDevice,
        _c_function(stream, "get_stream_ptr", b"intptr_t (int)"),
        _c_function(cupy.cuda.device, "get_device_id", b"int (int __pyx_skip_dispatch)"),
    )


def install() -> str:
    """Put CuPy onto cenote, for arrays from now on.

    Returns
    -------
    str
        What took effect.

    Raises
    ------
    ImportError
        CuPy is not installed, or too old.
    """
    allocator = _make_allocator()
    import cupy

    global _replaced
    current = cupy.cuda.get_allocator()
    if current is not allocator:
        _replaced = current
    cupy.cuda.set_allocator(allocator)
    return f"cupy {cupy.__version__}: arrays come from the current resource of their device"


def uninstall() -> str:
    """Have CuPy allocate as it did before `install`, for arrays from now on.

    Returns
    -------
    str
        What took effect.
    """
    import cupy

    if cupy.cuda.get_allocator() is not _make_allocator():
        return f"cupy {cupy.__version__}: was on an allocator of its own already"
    cupy.cuda.set_allocator(_replaced or cupy.get_default_memory_pool().malloc)
    return f"cupy {cupy.__version__}: new arrays come from the allocator of before"


def __getattr__(name: str) -> Any:
    if name == "cupy_allocator":
        return _make_allocator()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
