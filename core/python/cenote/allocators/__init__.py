"""The ways into cenote's current memory resource from other libraries: `torch`, `cupy`, `numba` and `cuda` (cuda.core).

Each is loaded, and imports its library, when it is first asked for.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["cuda", "cupy", "numba", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"cenote.allocators.{name}")
    raise AttributeError(f"module 'cenote.allocators' has no attribute {name!r}")
