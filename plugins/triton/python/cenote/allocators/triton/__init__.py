"""Triton on cenote: `triton_allocator` for ``triton.set_allocator``, the scratch memory of kernels.

::

    import triton
    from cenote.allocators.triton import triton_allocator
    triton.set_allocator(triton_allocator)

A kernel that needs memory of its own for a launch then has it from the current resource of the device, on the stream of
the launch. Tensors are PyTorch's, and come from cenote by its door. Triton keeps its allocator in a context variable: a
thread that is started later has none, and calls `install` for itself.
"""

from __future__ import annotations

from typing import Any

from cenote.registry import Client

__all__ = ["Scratch", "install", "triton_allocator", "uninstall"]

_client = Client("triton")
_ALIGNMENT = 256


class Scratch:
    """Memory for one launch, as Triton wants it; freed in the order of the stream when it dies.

    Parameters
    ----------
    size : int
        Size in bytes.
    stream : int, optional
        The stream of the launch; the legacy default stream if it is None.

    Raises
    ------
    cenote.OutOfMemoryError
        There is no memory. It is a MemoryError.
    """

    def __init__(self, size: int, stream: int | None) -> None:
        self._stream = stream or 0
        self._address = _client.allocate(size, self._stream)

    def data_ptr(self) -> int:
        """Give the address."""
        return self._address

    def __del__(self) -> None:
        if getattr(self, "_address", 0):
            _client.deallocate(self._address, self._stream)


def triton_allocator(size: int, alignment: int, stream: int | None) -> Scratch:
    """Allocate for a launch, on the device that is current.

    Parameters
    ----------
    size : int
        Size in bytes.
    alignment : int
        At most 256; Triton asks for 128.
    stream : int or None
        The stream of the launch.

    Returns
    -------
    Scratch

    Raises
    ------
    ValueError
        A larger alignment.
    """
    if alignment > _ALIGNMENT:
        raise ValueError(f"alignment must be at most {_ALIGNMENT}, not {alignment}")
    return Scratch(size, stream)


def _triton() -> Any:
    try:
        import triton
    except ImportError as error:
        raise ImportError(f"Triton cannot be imported ({error}): pip install triton") from error
    return triton


def install() -> str:
    """Have kernels that this thread launches take their scratch memory from cenote.

    Returns
    -------
    str
        What took effect.
    """
    triton = _triton()
    triton.set_allocator(triton_allocator)
    return (
        f"triton {triton.__version__}: scratch memory of this thread's launches comes from the current resource; other "
        "threads call cenote.allocators.triton.install()"
    )


def uninstall() -> str:
    """Take the allocator off the calling thread; as with Triton itself, a kernel that needs one then raises.

    Returns
    -------
    str
        What took effect.
    """
    triton = _triton()
    from triton.runtime._allocation import NullAllocator

    triton.set_allocator(NullAllocator())
    return f"triton {triton.__version__}: this thread's launches have no allocator"
