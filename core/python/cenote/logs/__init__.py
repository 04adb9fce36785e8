"""Logs of allocations: switched on and off (`recording`), read (`trace`), replayed (`replay`) and drawn (`timeline`).

`floor` computes what a log needs at the least. Each is loaded when it is first asked for, all but `recording` with
NumPy. `cenote.trace`, `cenote.replay` and `cenote.timeline` are the same modules.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cenote.logs import floor, recording, replay, timeline, trace

__all__ = ["floor", "recording", "replay", "timeline", "trace"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"cenote.logs.{name}")
    raise AttributeError(f"module 'cenote.logs' has no attribute {name!r}")
