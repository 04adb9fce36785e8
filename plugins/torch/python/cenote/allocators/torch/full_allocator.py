"""The full allocator, once it is built: puts it into PyTorch's slot, and takes it out of use."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from cenote.allocators.torch import full_build

__all__ = ["bytes_of_pages", "install", "is_on", "join_pages", "pages_of", "uninstall"]

_loaded: Path | None = None


@functools.cache
def _library(path: Path) -> ctypes.CDLL:
    global _loaded
    library = ctypes.CDLL(str(path))
    library.cenote_torch_full_failure.restype = ctypes.c_char_p
    library.cenote_torch_full_join_pages.argtypes = [ctypes.c_int64]
    library.cenote_torch_full_join_pages.restype = ctypes.c_int64
    library.cenote_torch_full_pages_of.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
    library.cenote_torch_full_pages_of.restype = ctypes.c_int64
    library.cenote_torch_full_bytes_of_pages.argtypes = [ctypes.c_int64]
    library.cenote_torch_full_bytes_of_pages.restype = ctypes.c_uint64
    _loaded = path
    return library


def _call(path: Path, function: str) -> None:
    library = _library(path)
    if getattr(library, function)() != 0:
        raise RuntimeError(library.cenote_torch_full_failure().decode())


def install() -> bool:
    """Have PyTorch allocate from cenote; False if the library is not built. PyTorch must be imported."""
    path = _loaded or full_build.built_library(full_build.find_torch())
    if path is None:
        return False
    _call(path, "cenote_torch_full_install")
    return True


def uninstall() -> bool:
    """Have PyTorch's own allocator make new blocks again; False if it does already."""
    if _loaded is None or not is_on():
        return False
    _call(_loaded, "cenote_torch_full_uninstall")
    return True


def is_on() -> bool:
    """Tell whether PyTorch's new blocks come from cenote, by the full allocator."""
    return _loaded is not None and bool(_library(_loaded).cenote_torch_full_is_on())


def _installed() -> ctypes.CDLL:
    assert _loaded is not None, "nothing of it is used before install()"
    return _library(_loaded)


def join_pages(number: int) -> int:
    """Have the graphs that this thread captures from now on share the pages of a set; 0: of none.

    Returns
    -------
    int
        The set of before.
    """
    return int(_installed().cenote_torch_full_join_pages(number))


def pages_of(first: int, second: int) -> int:
    """Tell which set of pages a graph's pool has joined; 0 for none."""
    return int(_installed().cenote_torch_full_pages_of(first, second))


def bytes_of_pages(number: int) -> int:
    """Count the bytes of a set's pages, on all devices."""
    return int(_installed().cenote_torch_full_bytes_of_pages(number))
