"""CuPy on cenote: `cupy_allocator` for ``cupy.cuda.set_allocator``.

::

    import cupy
    from cenote.allocators.cupy import cupy_allocator
    cupy.cuda.set_allocator(cupy_allocator)

Arrays then come from the current resource of their device, on CuPy's current stream. An array that dies while another
stream than its own is current is reused only after all work that the device has been given by then. CuPy's memory hooks
fire, and where memory is out, the error is CuPy's ``OutOfMemoryError``. A program that was written for
``cupy.get_default_memory_pool()`` asks a `CenoteMemoryPool`; `pinned_allocator` makes a function for
``cupy.cuda.set_pinned_memory_allocator``.

``cupy_allocator`` is made when it is first asked for; ImportError says why if it cannot be.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["CenoteMemoryPool", "cupy_allocator", "install", "pinned_allocator", "uninstall"]

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


def _call_with_hooks(malloc: Callable[[int], Any], size: int) -> Any:
    """Allocate between CuPy's memory hooks. One that raises after the allocation has it freed, as with CuPy."""
    from cupy.cuda import device, memory_hook

    hooks = list(memory_hook.get_memory_hooks().values())
    said = {"device_id": device.get_device_id(), "size": size, "mem_size": size}
    for hook in hooks:
        hook.malloc_preprocess(**said)
    pointer = None
    try:
        pointer = malloc(size)
    finally:
        made = (pointer.mem.ptr, id(pointer.mem)) if pointer is not None else (0, 0)
        for hook in hooks:
            hook.malloc_postprocess(**said, mem_ptr=made[0], pmem_id=made[1])
    return pointer


def _call_free_hooks(name: str, device: int, size: int, address: int, memory: int) -> None:
    from cupy.cuda import memory_hook

    for hook in list(memory_hook.get_memory_hooks().values()):
        getattr(hook, name)(device_id=device, mem_size=size, mem_ptr=address, pmem_id=memory)


def _out_of_memory(size: int, text: str) -> MemoryError:
    """CuPy's own exception, with its figures, and cenote's in a note."""
    from cupy.cuda.memory import OutOfMemoryError

    pool = _named("CenoteMemoryPool")()
    error: MemoryError = OutOfMemoryError(size, pool.total_bytes(), pool.get_limit())
    error.add_note(text)
    return error


def _watch_hooks(module: Any, hooks_are_used: Callable[[], None]) -> None:
    """Call `hooks_are_used` when the process sets its first hook, or at once where other threads may have set one.

    A hook is set by ``MemoryHook.__enter__``, or in what ``get_memory_hooks`` returns: both of `module`, and both call
    it from now on.
    """
    if module._has_memory_hooks() or threading.active_count() > 1:
        hooks_are_used()
        return

    def calling(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call_and_return(*arguments: Any) -> Any:
            hooks_are_used()
            return function(*arguments)

        return call_and_return

    module.MemoryHook.__enter__ = calling(module.MemoryHook.__enter__)
    module.get_memory_hooks = calling(module.get_memory_hooks)


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

    allocator: Callable[[int], Any] = _allocator.make_allocator(
        cupy.cuda.memory.BaseMemory,
        cupy.cuda.MemoryPointer,
        cupy.cuda.runtime.setDevice,
        _call_with_hooks,
        _call_free_hooks,
        _out_of_memory,
        _c_function(stream, "get_stream_ptr", b"intptr_t (int)"),
        _c_function(cupy.cuda.device, "get_device_id", b"int (int __pyx_skip_dispatch)"),
        _c_function(cupy.cuda.memory_hook, "_has_memory_hooks", b"int (int __pyx_skip_dispatch)"),
    )
    _watch_hooks(cupy.cuda.memory_hook, _allocator.hooks_are_used)
    return allocator


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
    ValueError
        ``CUPY_GPU_MEMORY_LIMIT`` is neither bytes nor a share.
    """
    allocator = _make_allocator()
    import cupy
    from cenote.allocators.cupy.memory_pool import set_limit_of_environment

    limit = set_limit_of_environment()

    global _replaced
    current = cupy.cuda.get_allocator()
    if current is not allocator:
        _replaced = current
    cupy.cuda.set_allocator(allocator)
    bound = f", bounded by CUPY_GPU_MEMORY_LIMIT={limit}" if limit else ""
    return f"cupy {cupy.__version__}: arrays come from the current resource of their device{bound}"


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
    from cenote.allocators.cupy.memory_pool import lift_limit_of_environment

    lift_limit_of_environment()
    cupy.cuda.set_allocator(_replaced or cupy.get_default_memory_pool().malloc)
    return f"cupy {cupy.__version__}: new arrays come from the allocator of before"


_MODULES = {"CenoteMemoryPool": "memory_pool", "pinned_allocator": "pinned_memory"}


def _named(name: str) -> Any:
    return getattr(importlib.import_module(f"cenote.allocators.cupy.{_MODULES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name == "cupy_allocator":
        return _make_allocator()
    if name in _MODULES:
        return _named(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
