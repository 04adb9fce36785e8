"""What a feature is: a thing that PyTorch users do with memory, one function each.

A function fails by raising; what it returns must be the same with both allocators.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

FEATURES: dict[str, Callable[[], Any]] = {}
MiB = 1 << 20

ALONE: set[str] = set()
"""Those that look at what the device has left, or take all of it: not beside others."""

INSTALL_THEMSELVES: set[str] = set()

FRESH: set[str] = set()
"""Those whose process imports PyTorch itself; others may be forks of one that has."""

OF_CENOTE: set[str] = set()
"""Those that PyTorch's own allocator does not have."""


def feature(function: Callable[[], Any]) -> Callable[[], Any]:
    FEATURES[function.__name__] = function
    return function


def feature_of_cenote(function: Callable[[], Any]) -> Callable[[], Any]:
    OF_CENOTE.add(function.__name__)
    return feature(function)


def installs_itself(function: Callable[[], Any]) -> Callable[[], Any]:
    INSTALL_THEMSELVES.add(function.__name__)
    return function


def alone(function: Callable[[], Any]) -> Callable[[], Any]:
    ALONE.add(function.__name__)
    return function


def fresh(function: Callable[[], Any]) -> Callable[[], Any]:
    FRESH.add(function.__name__)
    return function


def chosen_allocator() -> str:
    return os.environ["TORCH_FEATURES_ALLOCATOR"]


def tensor(size: int) -> Any:
    import torch

    return torch.empty(size, dtype=torch.uint8, device="cuda")


def device_free() -> int:
    import torch

    return torch.cuda.mem_get_info()[0]


def install(allocator: str) -> None:
    if allocator == "cenote":
        import cenote

        report = cenote.install("pool", frameworks="torch")
        assert report, report
        assert "full allocator" in str(report) or "on cenote already" in str(report), report
