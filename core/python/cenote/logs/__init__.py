"""Logs of allocations: switched on and off (`recording`), read (`trace`), replayed (`replay`) and drawn (`timeline`).

Each is loaded when it is first asked for, the last three with NumPy. `cenote.trace`, `cenote.replay` and
`cenote.timeline` are the same modules.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cenote.logs import recording, replay, timeline, trace

__all__ = ["recording", "replay", "timeline", "trace"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"cenote.logs.{name}")
    raise AttributeError(f"module 'cenote.logs' has no attribute {name!r}")
